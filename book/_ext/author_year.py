"""A bibliography whose labels are what the text cites: "Finn et al., 2017"."""

from urllib.parse import urlsplit

from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style as PlainStyle
from pybtex.style.labels import BaseLabelStyle
from pybtex.style.template import field, href


def surname(person):
    names = person.rich_prelast_names + person.rich_last_names
    return " ".join(str(name) for name in names)


def label(entry):
    """Surnames and year, as sphinxcontrib-bibtex writes them in a citation."""
    people = entry.persons.get("author") or entry.persons["editor"]
    names = [surname(person) for person in people]
    if len(names) > 2:
        names = [f"{names[0]} et al."]
    return f"{' and '.join(names)}, {entry.fields['year']}"


def host(address):
    return urlsplit(str(address)).netloc


class AuthorYearLabels(BaseLabelStyle):
    def format_labels(self, sorted_entries):
        return [label(entry) for entry in sorted_entries]


class AuthorYearStyle(PlainStyle):
    default_label_style = "author_year"

    def format_url(self, entry):
        """A link that shows the host alone: whole addresses are wider than a phone."""
        return href[field("url", raw=True), field("url", raw=True, apply_func=host)]


def setup(app):
    register_plugin("pybtex.style.labels", "author_year", AuthorYearLabels)
    register_plugin("pybtex.style.formatting", "author_year", AuthorYearStyle)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
