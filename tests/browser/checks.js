// What is looked for in a page as it is shown.  Each check returns a list of the faults.

const named = (element) => {
  const words = element.textContent.trim().replace(/\s+/g, " ").slice(0, 40);
  return `${element.tagName.toLowerCase()}.${[...element.classList].join(".")} "${words}"`;
};

const shown = (element) =>
  element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;

window.checks = {
  pictures: () =>
    [...document.images].filter((i) => i.complete && !i.naturalWidth).map((i) => i.src),

  // TeX outside code that nobody set, and what MathJax could not set.
  tex: () => {
    const found = [...document.querySelectorAll("mjx-merror")].map(named);
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const { data, parentElement } = walker.currentNode;
      if (parentElement.closest("script, style, pre, code, mjx-container, textarea")) continue;
      const tex = data.match(/\\[a-zA-Z]{2,}|\\[()[\]]|\$\$|\$[^$\s]+\$/);
      if (tex) found.push(tex[0]);
    }
    return found;
  },

  sideways: () => {
    const { scrollWidth, clientWidth } = document.documentElement;
    return scrollWidth > clientWidth ? [`${scrollWidth - clientWidth} px`] : [];
  },

  // Wider than its box: what scrolls shows a shadow at the edge (a background of gradients), so
  // that one sees that there is more; anything else is cut.
  cut: () =>
    [...document.querySelectorAll(".bd-article *")].filter((element) => {
      const { overflowX, backgroundImage } = getComputedStyle(element);
      if (overflowX === "visible" || element.scrollWidth <= element.clientWidth + 1) return false;
      if (!shown(element) || element.closest("mjx-container, .visually-hidden")) return false;
      return overflowX === "hidden" || !backgroundImage.includes("gradient");
    }).map((e) => `${named(e)} ${e.scrollWidth - e.clientWidth} px`),
};

// The element that has the focus: its name if that shows neither on it nor on a child, else nothing.
window.unseenFocus = () => {
  const element = document.activeElement;
  if (element === document.body) return "nothing";
  if (element.tagName.startsWith("MJX")) return `formula ${named(element)}`;
  const lookOf = (part, pseudo) => {
    const { outlineStyle, outlineWidth, outlineColor, boxShadow } = getComputedStyle(part, pseudo);
    return [outlineStyle === "none" ? "" : outlineWidth + outlineColor, boxShadow].join();
  };
  const look = () =>
    [element, ...element.children].flatMap((e) => [lookOf(e), lookOf(e, "::after")]).join();
  const focused = look();
  element.blur();
  const differs = look() !== focused;
  element.focus({ focusVisible: true });
  return differs && shown(element) ? null : named(element);
};

// The next stop of the Tab key is the first within the element.
window.startWithin = (selector) => {
  const element = document.querySelector(selector);
  element.tabIndex = -1;
  element.focus();
  element.removeAttribute("tabindex");
};

// What is folded is looked at too.
window.openAll = () => {
  document.querySelectorAll(".bd-article details").forEach((fold) => (fold.open = true));
  document.querySelectorAll('.bd-article .toggle-button[aria-expanded="false"]')
    .forEach((button) => button.click());
};

// Leave one piece of code of each colour and take the formulas out: axe-core measures the contrast
// of every element, and a page has thousands that look alike.
window.thin = () => {
  document.querySelectorAll("mjx-container").forEach((formula) => formula.remove());
  const seen = new Set();
  const alike = [...document.querySelectorAll("pre span:not(:has(*))")].filter((span) => {
    const { color } = getComputedStyle(span);
    const look = `${color} ${getComputedStyle(span.closest("pre")).backgroundColor}`;
    return seen.has(look) || !seen.add(look);
  });
  alike.forEach((span) => span.replaceWith(span.textContent));
};
