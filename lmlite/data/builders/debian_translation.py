"""Paragraphs of Debian package descriptions with their human translations, by language."""

from lmlite.data.debian import LANGUAGES, described, translations
from lmlite.data.text_rows import TextRows


class Builder(TextRows):
    """`english` and its `translation`, one split a language; rows of one `source` stay together.

    Descriptions are taken whose translation has as many paragraphs.
    """

    name = "debian_translation"
    columns = ("english", "translation", "source")
    distinct = ("english",)

    def splits(self):
        known = {one.digest: one for one in described()}
        return {language: _rows(known, language) for language in LANGUAGES}


def _rows(known, language):
    for digest, (_, paragraphs) in translations(language):
        one = known.get(digest)
        if one is not None and len(one.paragraphs) == len(paragraphs):
            for english, other in zip(one.paragraphs, paragraphs, strict=True):
                if english != other:  # left as it is, it is no translation
                    yield {"english": english, "translation": other, "source": one.source}
