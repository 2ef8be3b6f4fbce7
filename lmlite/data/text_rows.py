"""A TFDS builder of rows of text: what most packaged data sets are."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import tensorflow_datasets as tfds

Rows = Iterator[dict[str, str]]


class TextRows(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Columns of text, an `id` first; a subclass names them and yields its rows by split.

    classes: column -> the names of its values, for the columns that hold a class. Rows that repeat
    the columns `distinct` of an earlier one are left out, and so are rows in which one is empty.
    """

    VERSION = tfds.core.Version("1.0.0")
    columns: ClassVar[tuple[str, ...]] = ("text",)
    classes: ClassVar[dict[str, Sequence[str]]] = {}
    distinct: ClassVar[tuple[str, ...]] = ()

    def splits(self) -> dict[str, Rows]:
        """The rows of each split; an id is made where a row has none."""
        raise NotImplementedError

    def _info(self):
        features = {name: tfds.features.Text() for name in ("id", *self.columns)}
        features |= {n: tfds.features.ClassLabel(names=list(c)) for n, c in self.classes.items()}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(rows) for split, rows in self.splits().items()}

    def _generate_examples(self, rows):
        seen = set()
        for number, row in enumerate(rows):
            key = tuple(row[name] for name in self.distinct)
            if all(key) and not (key and key in seen):
                seen.add(key)
                yield number, {"id": str(number), **row}
