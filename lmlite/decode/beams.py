"""Beam search: the continuation with the best summed log-probability over length**penalty.

B prompts, W beams a prompt, C candidates a prompt, V vocabulary, N new tokens. Scoring and
stopping follow `transformers`, so that settings mean the same in both.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lmlite.decode.sampling import mark, penalised


class Beam(NamedTuple):
    """ids: int32[B, W, N]; score: float32[B, W], best first; length: int32[B, W]."""

    ids: jax.Array
    score: jax.Array
    length: jax.Array


class Searched(NamedTuple):
    """running: summed log-probabilities so far. ended: scores over length**penalty, -inf where
    none has ended yet. hopeful: bool[B], false where no better end can come. seen: bool[B * W, V].
    """

    running: Beam
    ended: Beam
    hopeful: jax.Array
    seen: jax.Array | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Beams:
    """rule: of `sampling.rule`, read for its repetition penalty. eos: int32[E]. limit: most tokens.

    rows_each: W. early: stop at W ended beams, not only when none that runs could beat them.
    """

    rule: dict[str, jax.Array]
    eos: jax.Array
    limit: jax.Array
    penalty: jax.Array
    rows_each: int = dataclasses.field(metadata={"static": True})
    early: bool = dataclasses.field(metadata={"static": True})

    def begin(self, rows: int, seen: jax.Array | None, room: int) -> Searched:
        """One empty beam a prompt, in `rows` rows of room for N tokens; it branches as it grows."""
        B, W = rows // self.rows_each, self.rows_each
        none = jnp.full((B, W), -jnp.inf)
        ids, length = jnp.zeros((B, W, room), jnp.int32), jnp.zeros((B, W), jnp.int32)
        running = Beam(ids, none.at[:, 0].set(0.0), length)
        return Searched(running, Beam(ids, none, length), jnp.ones(B, bool), seen)

    def extend(self, state: Searched, logits: jax.Array, step: jax.Array):
        """The state after token `step`, given logits [B * W, V] of the running beams.

        Also the last token of each beam and the row that it continues, int32[B * W] each.
        """
        found, token, parent = self._candidates(state, logits, step)
        last = step + 1 == self.limit
        ends = jnp.isin(token, self.eos) | last

        ended = self._ended(state, found, ends)
        score, place = jax.lax.top_k(jnp.where(ends, -jnp.inf, found.score), self.rows_each)
        running = _take(found, place)._replace(score=score)
        bound = score[:, 0] / (step + 1.0) ** self.penalty
        hopeful = state.hopeful & (bound > ended.score.min(-1)) & ~last & ~self._full(ended)

        first = self.rows_each * jnp.arange(score.shape[0])[:, None]
        rows = (first + jnp.take_along_axis(parent, place, 1)).ravel()
        token = jnp.take_along_axis(token, place, 1).ravel()
        seen = None if state.seen is None else mark(state.seen[rows], token)
        return Searched(running, ended, hopeful, seen), token, rows

    def _candidates(self, state: Searched, logits, step) -> tuple[Beam, jax.Array, jax.Array]:
        """The C best one-token continuations, with their tokens and parent beams, int32[B, C].

        C leaves W that run on even if every beam can end in every way.
        """
        logp = jax.nn.log_softmax(logits)
        if "repetition_penalty" in self.rule:
            logp = penalised(logp, state.seen, self.rule["repetition_penalty"])
        B, W = state.running.score.shape
        V = logits.shape[-1]
        total = state.running.score[:, :, None] + logp.reshape(B, W, V)
        count = min(W * max(2, 1 + len(self.eos)), W * V)
        score, place = jax.lax.top_k(total.reshape(B, W * V), count)
        parent, token = place // V, place % V
        found = _take(state.running, parent)
        ids = found.ids.at[:, :, step].set(token)
        return Beam(ids, score, jnp.full_like(found.length, step + 1)), token, parent

    def _ended(self, state: Searched, found: Beam, ends: jax.Array) -> Beam:
        """The W best of the ended beams and those of the W best candidates that end now."""
        W = self.rows_each
        may = ends & state.hopeful[:, None] & (jnp.arange(ends.shape[1]) < W)
        score = jnp.where(may, found.score / found.length**self.penalty, -jnp.inf)
        pool = (state.ended, found._replace(score=score))
        pool = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *pool)
        return _take(pool, jax.lax.top_k(pool.score, W)[1])

    def _full(self, ended: Beam) -> jax.Array:
        return jnp.isfinite(ended.score).all(-1) if self.early else jnp.zeros((), bool)

    def open(self, state: Searched) -> jax.Array:
        """Whether a better end is possible for any prompt: bool."""
        return state.hopeful.any()

    def stop(self, state: Searched, rows: jax.Array) -> Searched:
        """The state in which prompts `rows`, bool[B], want no better end."""
        return state._replace(hopeful=state.hopeful & ~rows)

    def settled(self, state: Searched, step: int) -> list[list[int]]:
        """The best ended beam of each prompt; nothing while a better one is possible."""
        ended, hopeful = jax.device_get((state.ended, state.hopeful))
        lengths = np.where(hopeful, 0, ended.length[:, 0])
        return [ids[:n].tolist() for ids, n in zip(ended.ids[:, 0], lengths, strict=True)]


def _take(beam: Beam, place: jax.Array) -> Beam:
    """The beams at `place`, int32[B, C], of each prompt."""
    rows = jnp.arange(place.shape[0])[:, None]
    return jax.tree.map(lambda x: x[rows, place], beam)
