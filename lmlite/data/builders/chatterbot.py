"""Short exchanges, by language: what is said, and a reply (the ChatterBot corpus)."""

import zipfile
from pathlib import PurePosixPath

import yaml

from lmlite.data.packages import fetch
from lmlite.data.text_rows import TextRows

LANGUAGES = ("chinese", "english", "french", "german", "spanish")


class Builder(TextRows):
    """`said` and its `reply`, consecutive turns of a conversation of one `topic`."""

    name = "chatterbot"
    columns = ("said", "reply", "topic")
    distinct = ("said", "reply")

    def splits(self):
        return {language: self._rows(language) for language in LANGUAGES}

    def _rows(self, language):
        with zipfile.ZipFile(fetch("chatterbot")) as archive:
            folder = f"chatterbot_corpus/data/{language}/"
            for name in sorted(n for n in archive.namelist() if n.startswith(folder)):
                document = yaml.safe_load(archive.read(name))
                for turns in document["conversations"]:
                    texts = [str(turn).strip() for turn in turns]
                    for said, reply in zip(texts, texts[1:], strict=False):
                        topic = PurePosixPath(name).stem
                        yield {"said": said, "reply": reply, "topic": topic}
