"""Snippets of film reviews, each rotten or fresh, with the film they are about."""

import bz2
import csv

import tensorflow_datasets as tfds

from lmlite.data.packages import members


class Builder(tfds.core.GeneratorBasedBuilder):
    """Plots are left out, and repeats: a snippet given to two films would be in two splits."""

    name = "rotten_tomatoes"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        text = tfds.features.Text()
        category = tfds.features.ClassLabel(names=("rotten", "fresh"))
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {"id": text, "text": text, "category": category, "movie_name": text}
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        (path,) = members("rotten_tomatoes")
        return {"train": self._generate_examples(path)}

    def _generate_examples(self, path):
        seen = {""}
        with bz2.open(path, "rt", encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.DictReader(file)):
                text = row["text"].strip()
                if row["category"] != "plot" and text not in seen:
                    seen.add(text)
                    yield (
                        number,
                        {
                            "id": str(number),
                            "text": text,
                            "category": row["category"],
                            "movie_name": row["movie_name"],
                        },
                    )
