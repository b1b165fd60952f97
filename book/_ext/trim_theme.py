"""What the theme's options say, and what of its pages the book does not use.

The second search bar, in the page's header, is dropped, and the title stands beside the logo as
text, which has the theme's colour in light and dark.  That is said here and not by
``html_theme_options`` in ``_config.yml``, which would replace all the options that Jupyter
Book derives from that file: the Colab, repository and edit buttons.

A first visit takes the colours that the reader's system has; the theme's own default is none, of
which its script complains.

While the repository's address is a placeholder, no button leads there.

Thebe, which runs cells on a server of others, is dropped: its scripts name another host, and
declare one name twice, an error in every page's console.
"""


def set_options(app, config):
    config.html_context["default_mode"] = "auto"
    options = config.html_theme_options
    options["navbar_persistent"] = []
    options["logo"] = {"text": config.html_title}
    if "owner_not_set" in options["repository_url"]:
        options["launch_buttons"] = {}
        for button in ("repository", "edit_page", "issues"):
            options[f"use_{button}_button"] = False


def drop_thebe(app, page, template, context, doctree):
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in (str(script.filename) + script.attributes.get("body", "")).lower()
    ]


def setup(app):
    app.connect("config-inited", set_options)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
