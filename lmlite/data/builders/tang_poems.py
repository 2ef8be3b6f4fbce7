"""Poems of the Tang dynasty in traditional characters, from the Quan Tangshi."""

import json
import re
import tarfile

from lmlite.data.packages import fetch
from lmlite.data.text_rows import TextRows


class Builder(TextRows):
    """`title`, `author`, and the poem as its `first` line and the `rest`; poems of one line are
    left out.
    """

    name = "tang_poems"
    columns = ("title", "author", "first", "rest")
    distinct = ("first", "rest")

    def splits(self):
        return {"train": self._rows()}

    def _rows(self):
        with tarfile.open(fetch("chinese_poetry")) as archive:
            for member in archive:  # one pass: the archive is large
                if re.search(r"/quantangshi/poet\.tang\.\d+\.json$", member.name):
                    for poem in json.load(archive.extractfile(member)):
                        first, *rest = poem["paragraphs"] or [""]
                        own = {"title": poem["title"], "author": poem["author"]}
                        yield {**own, "first": first, "rest": "\n".join(rest)}
