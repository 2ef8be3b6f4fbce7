"""Abstracts of clinical trials and the words in them that tell who took part."""

import json
import re

from lmlite.data.packages import member
from lmlite.data.text_rows import TextRows


class Builder(TextRows):
    """`context`, and `answer`, a span of it; items whose answer is not one span are left out."""

    name = "population_spans"
    columns = ("context", "answer")
    distinct = ("context", "answer")

    def splits(self):
        return {"test": self._rows()}

    def _rows(self):
        path = member("evals", "evals/registry/data/population_span_extraction/samples.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines():
            item = json.loads(line)
            context = item["input"][-1]["content"]
            spans = re.findall(r"'(.+?)'(?=,|$)", item["ideal"].partition(":")[2].strip())
            answer = spans[0].strip() if len(spans) == 1 else ""
            yield {"context": context, "answer": answer if answer in context else ""}
