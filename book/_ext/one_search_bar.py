"""Drop the theme's second search bar, the one in the page's header.

Set here and not as ``html_theme_options`` in ``_config.yml``, which would replace all the
options that Jupyter Book derives from that file: the Colab, repository and edit buttons.
"""


def drop_header_search(app, config):
    config.html_theme_options["navbar_persistent"] = []


def setup(app):
    app.connect("config-inited", drop_header_search)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
