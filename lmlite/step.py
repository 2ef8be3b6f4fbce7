"""One batch of gradient training, as a pure function: the objective and the update.

R rows, T tokens a row, U read positions, M targets a read, D width.
"""

import jax
import jax.numpy as jnp
import optax

from lmlite import tree
from lmlite.errors import UserError
from lmlite.icl.score import batch_logprobs
from lmlite.models.network import Network
from lmlite.models.remat import checkpointed
from lmlite.optim import Rule
from lmlite.runtime import Program

REMAT = ("none", "block")


def trained_network(network: Network, remat: str) -> Network:
    """What training differentiates; remat: 'block' recomputes each block in the backward pass.

    Raises UserError for another choice.
    """
    if remat not in REMAT:
        raise UserError(f"train.remat={remat!r} is unknown; known: {REMAT}")
    return checkpointed(network) if remat == "block" else network


def loss(logprobs: jax.Array, weights: jax.Array, gamma: float = 0.0) -> jax.Array:
    """Weighted mean negative log-likelihood of the labelled tokens: [U, M], [U, M] -> scalar.

    gamma > 0: the focal loss, -(1 - p)^gamma log p (Lin et al. 2017, arXiv:1708.02002, equation 4).
    """
    if gamma:
        logprobs = logprobs * (1.0 - jnp.minimum(jnp.exp(logprobs), 1.0 - 1e-6)) ** gamma
    total = jnp.sum(weights)
    return -jnp.sum(logprobs * weights) / jnp.where(total > 0, total, 1.0)


def objective(network: Network, start: int, gamma: float, params, batch, states, key) -> jax.Array:
    """The loss of a batch and what the method adds to it; states, start: see `batch_logprobs`."""
    rngs = {"dropout": key}
    logprobs = batch_logprobs(network, start, params, batch, states=states, rngs=rngs)
    value = loss(logprobs, batch.weights, gamma)
    return value + network.penalty(params) if network.penalty else value


def update(rule: Rule, rates, value_of, train, opt):
    """(train, opt, metrics) after a step on value_of(train) -> scalar.

    Differentiates by `train` alone, so that nothing below it has a gradient.
    """
    value, grads = jax.value_and_grad(value_of)(train)
    updates, opt = rule.build(rates).update(grads, opt, train)
    metrics = {"loss": value, "grad_norm": optax.tree.norm(grads)}
    return optax.apply_updates(train, updates), opt, metrics


def step(network, rule, start, gamma, train, opt, rates, frozen, batch, states, key):
    """One batch of one run: (train, opt, metrics)."""

    def value(train):
        return objective(network, start, gamma, tree.merge(frozen, train), batch, states, key)

    return update(rule, rates, value, train, opt)


train_step = Program(step, static=4, donate=(4, 5))
