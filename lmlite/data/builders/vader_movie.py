"""Snippets of film reviews with the mean of 20 people's ratings, from -4 to 4.

C. J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social
Media Text", ICWSM 2014.
"""

import numpy as np
import tensorflow_datasets as tfds

from lmlite.data.packages import members


class Builder(tfds.core.GeneratorBasedBuilder):
    """`score` is the mean rating, `sentiment` its sign (three classes); repeats are left out."""

    name = "vader_movie"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        text = tfds.features.Text()
        sentiment = tfds.features.ClassLabel(names=("negative", "neutral", "positive"))
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "id": text,
                    "text": text,
                    "score": tfds.features.Scalar(np.float32),
                    "sentiment": sentiment,
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        (path,) = members("vader_movie")
        return {"train": self._generate_examples(path)}

    def _generate_examples(self, path):
        seen = {""}
        with path.open(encoding="utf-8") as file:
            for line in file:
                number, score, text = line.strip().split("\t")
                if text not in seen:
                    seen.add(text)
                    yield (
                        number,
                        {
                            "id": number,
                            "text": text,
                            "score": float(score),
                            "sentiment": 1 + int(np.sign(float(score))),
                        },
                    )
