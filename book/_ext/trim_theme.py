"""Take two things from the pages that the theme puts there and the book does not use.

The second search bar, in the page's header.  It is dropped here and not by
``html_theme_options`` in ``_config.yml``, which would replace all the options that Jupyter
Book derives from that file: the Colab, repository and edit buttons.

Thebe, which runs cells on a server of others: its scripts name another host, and declare one
name twice, an error in every page's console.
"""


def drop_header_search(app, config):
    config.html_theme_options["navbar_persistent"] = []


def drop_thebe(app, page, template, context, doctree):
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in (str(script.filename) + script.attributes.get("body", "")).lower()
    ]


def setup(app):
    app.connect("config-inited", drop_header_search)
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
