"""Questions on what people in a small scene feel, want or do, with three answers each.

M. Sap et al., "Social IQa: Commonsense Reasoning about Social Interactions", EMNLP 2019.
"""

import json
import re

import tensorflow_datasets as tfds

from lmlite.data.packages import member

ITEM = re.compile(
    r"(?P<context>.*[.!?]\W*?)\s*(?P<question>[^\s.!?][^.!?]*\?)\s+"
    r"A: (?P<answer_a>.*); B: (?P<answer_b>.*); C: (?P<answer_c>.*?)\.?",
    re.DOTALL,
)


class Builder(tfds.core.GeneratorBasedBuilder):
    """`label` is A, B or C; exact repeats are left out."""

    name = "socialiqa"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        columns = ("id", *ITEM.groupindex)
        features = {column: tfds.features.Text() for column in columns}
        features["label"] = tfds.features.ClassLabel(names=("A", "B", "C"))
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        path = member("evals", "evals/registry/data/theory_of_mind/socialiqa/test.jsonl")
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
