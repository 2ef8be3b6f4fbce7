"""Choosing one token a row from its logits: greedy, or at random among the likely ones.

B rows, V vocabulary, N new tokens. Filters follow `transformers`: repetition penalty, temperature,
top-k, top-p, min-p, in this order.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lmlite.errors import UserError


class Sampled(NamedTuple):
    """ids: int32[B, N], filled up to the current step. done: bool[B]. seen: bool[B, V] or None."""

    ids: jax.Array
    done: jax.Array
    seen: jax.Array | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sampler:
    """rule: what `rule` gave. keys: a random key a row, [B]. eos: int32[E], ids that end a text.
    rows_each: of a prompt.

    All other fields are traced: another temperature or seed compiles nothing.
    """

    rule: dict[str, jax.Array]
    keys: jax.Array
    eos: jax.Array
    rows_each: int = dataclasses.field(default=1, metadata={"static": True})

    def begin(self, rows: int, seen: jax.Array | None, room: int) -> Sampled:
        """Nothing chosen yet for B rows with room for N tokens."""
        return Sampled(jnp.zeros((rows, room), jnp.int32), jnp.zeros(rows, bool), seen)

    def extend(self, state: Sampled, logits: jax.Array, step: jax.Array):
        """Chooses token `step` of each row by logits [B, V].

        Returns the state with it, the tokens int32[B], and None: each row continues itself.
        """
        keys = jax.vmap(jax.random.fold_in, (0, None))(self.keys, step)
        token = choose(logits, state.seen, self.rule, keys)
        ids = jax.lax.dynamic_update_slice(state.ids, token[:, None], (0, step))
        done = state.done | jnp.isin(token, self.eos)
        return Sampled(ids, done, mark(state.seen, token)), token, None

    def open(self, state: Sampled) -> jax.Array:
        """Whether any row wants more tokens: bool."""
        return ~state.done.all()

    def stop(self, state: Sampled, rows: jax.Array) -> Sampled:
        """The state in which `rows`, bool[B], want no more tokens."""
        return state._replace(done=state.done | rows)

    def settled(self, state: Sampled, step: int) -> list[list[int]]:
        """The ids of each row after `step` tokens, whatever follows its end included."""
        return jax.device_get(state.ids)[:, :step].tolist()


def rule(
    temperature: float, top_k: int, top_p: float, min_p: float, repetition_penalty: float
) -> dict[str, jax.Array]:
    """The settings that do something, by name; empty for plain greedy decoding.

    Raises UserError for a value out of range, or a filter of random choices at temperature 0.
    """
    ranges = {
        "temperature": (temperature >= 0, temperature, 0.0, "at least 0"),
        "top_k": (top_k >= 0, top_k, 0, "at least 0 (0: no limit)"),
        "top_p": (0 < top_p <= 1, top_p, 1.0, "above 0, at most 1"),
        "min_p": (0 <= min_p <= 1, min_p, 0.0, "between 0 and 1"),
        "repetition_penalty": (repetition_penalty > 0, repetition_penalty, 1.0, "above 0"),
    }
    for name, (valid, value, _, wanted) in ranges.items():
        if not valid:
            raise UserError(f"{name}={value} must be {wanted}")
    active = {name: value for name, (_, value, off, _) in ranges.items() if value != off}
    idle = [f"{name}={active[name]}" for name in ("top_k", "top_p", "min_p") if name in active]
    if idle and not temperature:
        raise UserError(f"{idle[0]} does nothing at temperature=0; set a temperature or drop it")
    return {name: jnp.float32(value) for name, value in active.items()}


def choose(logits: jax.Array, seen: jax.Array | None, rule: dict, keys: jax.Array) -> jax.Array:
    """int32[B]: a token for each row of logits float32[B, V]; keys [B] are read if it is random."""
    if "repetition_penalty" in rule:
        logits = penalised(logits, seen, rule["repetition_penalty"])
    if "temperature" not in rule:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    likely = filtered(jax.nn.softmax(logits / rule["temperature"]), rule)
    return jax.vmap(jax.random.categorical)(keys, jnp.log(likely)).astype(jnp.int32)


def penalised(logits: jax.Array, seen: jax.Array, penalty: jax.Array) -> jax.Array:
    """Logits [B, V] of the tokens in seen, bool[B, V], made smaller (Keskar et al. 2019)."""
    return jnp.where(seen, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def filtered(p: jax.Array, rule: dict) -> jax.Array:
    """Probabilities [B, V] with the unlikely ones set to 0 by top-k, top-p and min-p; not rescaled.

    Every filter keeps what reaches a threshold, and thresholds don't mind the scale: so nothing
    is sorted. Tokens as likely as the last one kept are kept too.
    """
    if "top_k" in rule:
        p = _keep(p, jnp.ones_like(p), rule["top_k"])
    if "top_p" in rule:  # the smallest set that holds this much (Holtzman et al. 2020)
        p = _keep(p, p, rule["top_p"] * p.sum(-1, keepdims=True))
    if "min_p" in rule:
        p = jnp.where(p < rule["min_p"] * p.max(-1, keepdims=True), 0.0, p)
    return p


def _keep(p: jax.Array, weight: jax.Array, budget: jax.Array) -> jax.Array:
    """p where the tokens that are more probable weigh less than `budget`, else 0.

    Finds the threshold by bisection: floats in 0..1 are ordered as their bits are as integers.
    """
    bits = jax.lax.bitcast_convert_type(p, jnp.int32)

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) // 2
        above = jnp.where(bits > middle, weight, 0.0).sum(-1, keepdims=True)
        enough = above < budget
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    rows = (*p.shape[:-1], 1)
    one = jax.lax.bitcast_convert_type(jnp.float32(1.0), jnp.int32)
    bounds = jnp.full(rows, -1), jnp.full(rows, one)
    _, threshold = jax.lax.fori_loop(0, 31, halve, bounds)
    return jnp.where(bits >= threshold, p, 0.0)


def mark(seen: jax.Array | None, token: jax.Array) -> jax.Array | None:
    """`seen`, bool[B, V], with token int32[B] of each row in it."""
    return None if seen is None else seen.at[jnp.arange(token.shape[0]), token].set(True)
