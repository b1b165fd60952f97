"""Make the book's Chinese words be found by their parts too.

Sphinx takes a row of Chinese characters for one word: a search for the last two characters of a
term does not find it.  Here each part of such a row is indexed beside the whole.
"""

import re

from sphinx.search.en import SearchEnglish

HAN = re.compile("[\u4e00-\u9fff]+")


def parts(row):
    """Every part of a row of characters, itself included."""
    ends = range(1, len(row) + 1)
    return {row[start:end] for end in ends for start in range(end)}


class EnglishWithChinese(SearchEnglish):
    def split(self, text):
        rows = set(HAN.findall(text))
        return super().split(text) + sorted(set().union(*map(parts, rows)) - rows)


def setup(app):
    app.add_search_language(EnglishWithChinese)  # in the place of English: its code is "en" too
    return {"parallel_read_safe": True, "parallel_write_safe": True}
