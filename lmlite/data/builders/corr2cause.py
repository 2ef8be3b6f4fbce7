"""Does a premise on correlations entail, contradict or leave open a hypothesis on causes?

Z. Jin et al., "Can Large Language Models Infer Causation from Correlation?", ICLR 2024.
"""

import json
import re

from lmlite.data.packages import member
from lmlite.data.text_rows import TextRows

ITEM = re.compile(r"Premise: (?P<premise>.*?)\s*Hypothesis: (?P<hypothesis>.*)", re.DOTALL)


class Builder(TextRows):
    """`label` is entailment, neutral or contradiction."""

    name = "corr2cause"
    columns = ("premise", "hypothesis")
    classes = {"label": ("entailment", "neutral", "contradiction")}
    distinct = ("premise", "hypothesis")

    def splits(self):
        return {"test": self._rows()}

    def _rows(self):
        path = member("evals", "evals/registry/data/corr2cause/corr2cause.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines():
            item = json.loads(line)
            text = ITEM.fullmatch(item["input"][-1]["content"])
            yield {**text.groupdict(), "label": item["ideal"].removeprefix("Answer: ")}
