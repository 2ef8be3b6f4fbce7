"""Descriptions of Debian packages and the section of the archive that each is in."""

from lmlite.data.debian import described
from lmlite.data.text_rows import TextRows


class Builder(TextRows):
    """`text` (synopsis and description), `section`; packages of one `source` stay together."""

    name = "debian_topic"
    columns = ("text", "section", "source")
    distinct = ("text",)

    def splits(self):
        return {"train": self._rows()}

    def _rows(self):
        for one in described():
            text = " ".join([f"{one.synopsis}.", *one.paragraphs])
            own = {"section": one.section, "source": one.source}
            yield {"id": one.package, "text": text, **own}
