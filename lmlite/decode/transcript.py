"""A text as its tokens arrive: where it ends, and which part of it can be shown already."""

import os
from collections.abc import Callable, Sequence

from lmlite.models.tokenizer import Tokenizer

_CONTEXT = 4  # prompt tokens decoded along: some tokenizers drop the space of what comes first


class Transcript:
    """What follows one prompt. `ids` and `text` stop before the token or text that ends them.

    tokenizer: None gives no text. eos: ids that end it; stops: texts that end it, wherever their
    tokens begin. emit is called with pieces of finished text: whole characters that no stop text
    can take back.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        prompt: Sequence[int],
        eos: Sequence[int],
        stops: Sequence[str] = (),
        emit: Callable[[str], None] | None = None,
    ):
        self.ids: list[int] = []
        self.text = ""
        self.done = False
        self._tokenizer = tokenizer
        self._context = list(prompt[-_CONTEXT:])
        self._before = tokenizer.decode(self._context) if tokenizer else ""
        self._eos, self._stops, self._emit = frozenset(eos), stops, emit
        self._shown = 0

    def update(self, ids: list[int]) -> None:
        """Takes all ids so far; sets `done` where they hold an end."""
        if self.done:
            return
        known = len(self.ids)
        end = next((i for i in range(known, len(ids)) if ids[i] in self._eos), None)
        self.ids, self.done = ids[:end], end is not None
        if self._stops or self._emit:
            self.text = self._decode(self.ids)
            self._stop(known)
            self._show()

    def close(self) -> None:
        """No more ids will come: the text is complete as it is."""
        if not self.done:
            self.done = True
        if self._tokenizer and not (self._stops or self._emit):
            self.text = self._decode(self.ids)
        self._show()

    def _decode(self, ids: list[int]) -> str:
        whole = self._tokenizer.decode(self._context + ids)
        return whole[len(os.path.commonprefix([self._before, whole])) :]

    def _stop(self, known: int) -> None:
        """Cuts the text before the first stop text, the ids after the token that completes it."""
        at = _find(self.text, self._stops)
        if at is None:
            return
        lengths = range(known + 1, len(self.ids) + 1)
        n = next(n for n in lengths if _find(self._decode(self.ids[:n]), self._stops) is not None)
        self.ids, self.text, self.done = self.ids[:n], self.text[:at], True

    def _show(self) -> None:
        end = len(self.text) if self.done else _safe(self.text, self._stops)
        if self._emit and end > self._shown:
            self._emit(self.text[self._shown : end])
            self._shown = end


def _find(text: str, stops: Sequence[str]) -> int | None:
    """Where the first of `stops` begins in `text`."""
    return min((at for stop in stops if (at := text.find(stop)) >= 0), default=None)


def _safe(text: str, stops: Sequence[str]) -> int:
    """Length of `text` without an unfinished character and without the start of a stop text."""
    text = text.rstrip("\ufffd")
    starts = (n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n]))
    return len(text) - max(starts, default=0)
