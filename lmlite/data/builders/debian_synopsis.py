"""Descriptions of Debian packages with the synopsis their maintainers wrote: a summary."""

from lmlite.data.debian import described
from lmlite.data.text_rows import TextRows


class Builder(TextRows):
    """`text` and its `synopsis`; packages of one `source` stay together."""

    name = "debian_synopsis"
    columns = ("text", "synopsis", "source")
    distinct = ("text",)

    def splits(self):
        return {"train": self._rows()}

    def _rows(self):
        for one in described():
            own = {"synopsis": one.synopsis, "source": one.source}
            yield {"id": one.package, "text": "\n".join(one.paragraphs), **own}
