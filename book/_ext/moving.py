"""Pictures that move: ``{moving} NAME``, a figure whose still is ``book/_static/moving/NAME.svg``.

The body of the directive is the caption, ``:name:`` the figure's label and ``:alt:`` describes the
still.  On a screen the script ``NAME.js`` puts the moving picture in the still's place; print, and
browsers without JavaScript, keep the still.  Only pages with such a figure load the scripts.
"""

from docutils import nodes
from sphinx.directives.patches import Figure


class Moving(Figure):
    def run(self):
        name = self.arguments[0]
        self.arguments[0] = f"/book/_static/moving/{name}.svg"
        self.options |= {"class": ["drawn"], "figclass": ["moving", name]}
        return super().run()


def add_scripts(app, page, template, context, doctree):
    figures = doctree.findall(nodes.figure) if doctree else ()
    names = [figure["classes"][1] for figure in figures if "moving" in figure["classes"]]
    if names:
        app.add_css_file("moving/moving.css")
        app.add_js_file("moving/moving.js", loading_method="defer")
    for name in names:
        for script in (f"{name}-data", name):
            app.add_js_file(f"moving/{script}.js", loading_method="defer")


def setup(app):
    app.add_directive("moving", Moving)
    app.connect("html-page-context", add_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
