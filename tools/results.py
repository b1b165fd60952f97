"""Put the stored results into ``book/results.md``: ``python -m tools.results``.

The page's tables and its picture are made here; a test fails when page and results differ.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.omniglot import SIZES, stored
from benchmarks.omniglot_recipes import RECIPES
from benchmarks.sinusoid import METHODS, SEEDS
from mlutils.evaluation import Score
from mlutils.plot import COLORS, use_style
from mlutils.results import stored_result
from tools.notebooks import ROOT

PAGE, PICTURE = ROOT / "book" / "results.md", ROOT / "book" / "_static" / "results.svg"
RESULTS = ROOT / "benchmarks" / "results"
YES = {True: "yes", False: "no"}
LEARNERS = [name for recipe in RECIPES.values() for name in recipe.learners]


def load(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


# ---------------------------------------------------------------- Omniglot


def ours(cells):
    """Mean and interval of one cell: over seeds where there are three, else over tasks."""
    means = [cell["mean"] for cell in cells]
    if len(cells) < 3:
        return np.mean(means), np.mean([cell["ci95"] for cell in cells])
    return np.mean(means), Score(means).ci95


def shown(cells):
    if not cells:
        return "not run"
    mean, ci95 = ours(cells)
    seeds = f"{len(cells)} seeds" if len(cells) > 1 else "1 seed"
    return f"{mean:.1f} ± {ci95:.1f}, {seeds}"


def published(name, size):
    found = PUBLISHED.get(name, {}).get("cells", {}).get("{}w{}s".format(*size))
    return found and " ± ".join(str(value) for value in found)


def cite(name):
    return "{cite:p}`" + PUBLISHED[name]["source"] + "`" if name in PUBLISHED else ""


def omniglot_table(cells, protocol):
    """Each learner's cells, and the paper's below."""
    between = protocol == "vinyals"
    sizes = SIZES if between else [size for size in SIZES if size[1] == 1]
    rows = [["", "sees the queries together", *(f"{n}-way {k}-shot" for n, k in sizes)]]
    for name in LEARNERS:
        mine = [cells.get((name, *size, protocol)) for size in sizes]
        told = [published(name, size) for size in sizes] if between else []
        if any(mine) or any(told):
            found = {cell["transductive"] for seeds in mine if seeds for cell in seeds}
            together = " and ".join(sorted(YES[flag] for flag in found))
            rows.append([f"**{name}**", together, *map(shown, mine)])
        if any(told):
            note = PUBLISHED[name].get("note")
            said = f"published {cite(name)}" + (f", {note}" if note else "")
            together = YES.get(PUBLISHED[name].get("together"), "")
            rows.append([said, together, *(value or "" for value in told)])
    return markdown(rows) if len(rows) > 1 else "None of these has been run yet."


def tries_table(cells, tries):
    """Trainings with another length or alpha, beside those of the recipes."""
    rows = [["", "a try", "", "the recipe", ""]]
    of = sorted(tries, key=lambda key: (LEARNERS.index(key[0]), key[1:]))
    for name, ways, shots, protocol in of:
        for cell in tries[name, ways, shots, protocol]:
            mine = cells.get((name, ways, shots, protocol), [])
            recipe = setting(mine[0], cell) if mine else ""
            tried = setting(cell, cell), shown([cell])
            rows.append([f"{name}, {ways}-way {shots}-shot", *tried, recipe, shown(mine)])
    return markdown(rows) if len(rows) > 1 else "None."


def setting(cell, tried):
    """A cell's steps, and its alpha if a try had one of its own."""
    config = cell["config"]
    alpha = "--alpha" in tried["command"]
    return f"{config['steps']:,} steps" + (f", alpha {config['alpha']}" if alpha else "")


def runs_table(cells, protocol):
    """What each training took, and where its recipe leaves the paper's."""
    rows = [["", "steps", "minutes", "seconds for 1,000 tasks", "machine", "leaves the paper in"]]
    seen = set()
    of_protocol = [key for key in cells if key[3] == protocol]
    for name, *size in sorted(of_protocol, key=lambda key: (LEARNERS.index(key[0]), key[1:])):
        for cell in cells[name, *size]:
            if cell["command"] in seen:
                continue
            seen.add(cell["command"])
            config, machine = cell["config"], cell["machine"]
            wide = "with" if machine.get("AVX-512") else "without"
            where = f"{machine['cores']} cores {wide} AVX-512"
            title = " ".join(cell["command"].split()[4:])
            seconds = config["seconds per 1,000 episodes"]
            facts = [f"{config['steps']:,}", cell["minutes"], "" if seconds is None else seconds]
            rows.append([f"`{title}`", *facts, where, config["differs"]])
    return markdown(rows) if len(rows) > 1 else "None."


def picture(cells):
    """One row a learner; filled marks are ours, hollow ones the papers'."""
    names = [n for n in LEARNERS if n in PUBLISHED or any(k[0] == n for k in cells)]
    figure, axes = plt.subplots(1, 2, figsize=(7.6, 0.34 * len(names) + 1.1), sharey=True)
    for axis, size in zip(axes, SIZES[:2], strict=True):
        for row, name in enumerate(names):
            told = PUBLISHED.get(name, {}).get("cells", {}).get("{}w{}s".format(*size))
            if told:
                wide = {"xerr": told[1]} if told[1:] else {}
                hollow = {"mfc": "white", "ms": 8, "mew": 1.5, "elinewidth": 1.5}
                axis.errorbar(told[0], row, fmt="o", color=COLORS[1], **hollow, **wide)
            mine = cells.get((name, *size, "vinyals"))
            if mine:
                mean, ci95 = ours(mine)
                axis.errorbar(mean, row, xerr=ci95, fmt="o", color=COLORS[0], ms=4, capsize=2)
            if not (told or mine):
                axis.text(0.98, row, "not run", transform=axis.get_yaxis_transform(), ha="right")
        axis.set(xlabel="% right", title=f"{size[0]}-way {size[1]}-shot")
    axes[0].set(yticks=range(len(names)), yticklabels=names)
    axes[0].invert_yaxis()
    return figure


# ---------------------------------------------------------------- sine waves, learned optimizers


def sinusoid_table(points):
    methods, steps = load("sinusoid")["methods"], (0, 1, 5, 10)
    rows = [["", *(f"{k} steps" if k != 1 else "1 step" for k in steps)]]
    for name in METHODS:
        runs = methods.get(name, [])
        if len(runs) < len(SEEDS):
            rows.append([f"**{name}**", *["not run"] * len(steps)])
            continue
        scores = [[s for s in run["scores"] if s.get("points", points) == points] for run in runs]
        at = [[s for run in scores for s in run if s["steps"] == k] for k in steps]
        rows.append([f"**{name}**, mean", *(over_seeds([s["mean"] for s in some]) for some in at)])
        if name != "oracle":
            medians = [over_seeds([s["median"] for s in some]) for some in at]
            rows.append([f"{name}, median", *medians])
        told = WAVES.get(name)
        if told and told["points"] == points:
            errors = (told["errors"].get(str(k)) for k in steps)
            said = f"{name}, published {{cite:p}}`{told['source']}`"
            rows.append([said, *("" if e is None else f"{e:.2f}" for e in errors)])
    return markdown(rows)


def over_seeds(values):
    if not values:
        return ""
    diverged = sum(value is None or value > 100 for value in values)
    if diverged:  # waves have a variance of at most 13
        return f"diverged on a task in {diverged} of {len(values)} seeds"
    score = Score(values)
    digits = 2 if score.mean >= 0.1 else 4
    return f"{score.mean:.{digits}f} ± {score.ci95:.{digits}f}"


def optimizers_table():
    stored = stored_result("quadratics")
    rows = [["", *(f"after {t} steps" for t in stored["horizons"])]]
    family = stored["families"]["rotated"]
    names = {"learned there": "**the LSTM rule**"} | {n: n for n in family["settings"]}
    for name, label in names.items():
        rows.append(
            [label, *(over_seeds(list(v)) for v in zip(*family["means"][name], strict=True))]
        )
    return markdown(rows)


def processes_table():
    stored = stored_result("gaussian_process")
    points = list(stored["exact"])
    rows = [["", *(f"{n} points" for n in points)]]
    rows.append(["the exact posterior", *(f"{stored['exact'][n]:.2f}" for n in points)])
    for steps in sorted({run["steps"] for run in stored["runs"]}):
        runs = [run["nats"] for run in stored["runs"] if run["steps"] == steps]
        scores = [Score([run[n] for run in runs]) for n in points]
        cells = (f"{score.mean:.2f} ± {score.ci95:.2f}" for score in scores)
        rows.append([f"**neural process**, {steps:,} steps, {len(runs)} seeds", *cells])
    return markdown(rows)


# ---------------------------------------------------------------- the page


def markdown(rows):
    """A table; the first row is its head."""
    lines = ["| " + " | ".join(str(value) for value in row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def blocks():
    """What stands between ``% begin NAME`` and ``% end NAME`` on the page."""
    cells = stored()
    found = {
        "omniglot": omniglot_table(cells, "vinyals"),
        "within": omniglot_table(cells, "lake"),
        "runs": runs_table(cells, "vinyals"),
        "tries": tries_table(cells, stored("tries")),
        "optimizers": optimizers_table(),
        "processes": processes_table(),
    }
    return found | {f"sines {points}": sinusoid_table(points) for points in (5, 10, 20)}


def renewed(text):
    """The page with all its blocks as they are now."""
    for name, block in blocks().items():
        begin, end = f"% begin {name}\n", f"% end {name}\n"
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise SystemExit(f"book/results.md has no lines {begin!r} and {end!r}.")
        text = f"{before}{begin}\n{block}\n\n{end}{after}"
    return text


PUBLISHED, WAVES = load("published").values()


def main():
    use_style()
    plt.rcParams["svg.hashsalt"] = "results"
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    picture(stored()).savefig(PICTURE, metadata={"Date": None, "Creator": None})
    print(f"wrote {PAGE.relative_to(ROOT)} and {Path(PICTURE).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
