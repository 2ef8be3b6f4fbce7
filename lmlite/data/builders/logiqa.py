"""Questions on the logic of a short passage, with four answers each.

J. Liu et al., "LogiQA: A Challenge Dataset for Machine Reading Comprehension with Logical
Reasoning", IJCAI 2020.
"""

import json
import re

import tensorflow_datasets as tfds

from lmlite.data.packages import member

ITEM = re.compile(
    r"\s*Passage: (?P<context>.*?)\s*Question: (?P<question>.*?)\s*"
    r"\nA\. A\.(?P<answer_a>.*?)\s*\nB\. B\.(?P<answer_b>.*?)\s*"
    r"\nC\. C\.(?P<answer_c>.*?)\s*\nD\. D\.(?P<answer_d>.*?)\s*\nAnswer:",
    re.DOTALL,
)


class Builder(tfds.core.GeneratorBasedBuilder):
    """`label` is A, B, C or D; the file holds each item twice, the repeats are left out."""

    name = "logiqa"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        columns = ("id", *ITEM.groupindex)
        features = {column: tfds.features.Text() for column in columns}
        features["label"] = tfds.features.ClassLabel(names=("A", "B", "C", "D"))
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        path = member("evals", "evals/registry/data/logiqa/logiqa.jsonl")
        return {"test": self._generate_examples(path)}

    def _generate_examples(self, path):
        seen = set()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
            item = json.loads(line)
            text = item["input"][-1]["content"]
            if text not in seen:
                seen.add(text)
                columns = ITEM.fullmatch(text).groupdict()
                yield number, {"id": str(number), **columns, "label": item["ideal"]}
