"""The works of Shakespeare in modern spelling, as Project Gutenberg has them: one row a work."""

import tensorflow_datasets as tfds

from lmlite.data.packages import members


class Builder(tfds.core.GeneratorBasedBuilder):
    """`name` of the work, such as 'hamlet', and its `text`; in the order of the names."""

    name = "shakespeare"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        text = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"name": text, "text": text}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(members("shakespeare"))}

    def _generate_examples(self, paths):
        for number, path in enumerate(paths):
            text = path.read_text(encoding="utf-8").strip() + "\n"
            yield number, {"name": path.name.removesuffix("_gut.txt"), "text": text}
