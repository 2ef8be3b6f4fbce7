"""In-context answers by greedy decoding among the choices; see `lmlite.icl.constrained`."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from lmlite.arms.choices import ModelPredictor
from lmlite.data.task import Example
from lmlite.errors import UserError
from lmlite.icl.constrained import decoded, paths
from lmlite.icl.encode import Encoded
from lmlite.runtime import Meter


@dataclasses.dataclass(frozen=True)
class ConstrainedPredictor(ModelPredictor):
    """Writes its answer, and may write nothing but a choice.

    Unlike the argmax of whole choices' log-probabilities it decides token by token, as generation
    does: a likely first token wins, however unlikely what has to follow it.
    """

    of_texts: ClassVar[bool] = False

    def predict(self, examples: Sequence[Example], meter: Meter):
        """See `Predictor`."""
        if not examples[0].choices:
            raise UserError("direction='constrained' is for tasks with choices; take 'direct'")
        encoded, ends = self._encoded(examples, meter), self._ends()
        tries = [paths(e.choices, ends) for e in encoded]
        pairs = zip(encoded, tries, strict=True)
        asked = [Encoded(e.context, [list(path) for path in trie]) for e, trie in pairs]
        sums = [
            dict(zip(trie, values, strict=True))
            for trie, values in zip(tries, self.scores(asked, meter), strict=True)
        ]
        return {"": [decoded(e.choices, s) for e, s in zip(encoded, sums, strict=True)]}

    def _ends(self) -> list[int]:
        """The tokens that end an answer: those that end a text, and the first after it in a prompt
        of several demonstrations.
        """
        ends = list(self.lm.config.eos_ids) if self.lm.config.causal else []
        after = "" if self.task.chat or self.lm.config.cross else self.task.fewshot_delimiter
        if after:  # its tokens may depend on whether text follows
            whole = self.lm.text.encode_batch([after, after + "A"], special=False)
            ends += [ids[0] for ids in whole]
        return list(dict.fromkeys(ends))
