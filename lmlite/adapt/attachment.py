"""Putting a method on a model: its parameters beside the base's, its hooks around the modules.

Models are values: attaching copies no array and leaves `lm` as it was, so that adapters of one
loaded base are switched by calling another model. Methods that hook modules stack, each in a slot.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from lmlite import tree
from lmlite.adapt.hooks import slotted
from lmlite.adapt.method import Method, Params, Squares, free_slot
from lmlite.errors import UserError
from lmlite.models import weights
from lmlite.models.config import StackConfig
from lmlite.models.lm import LM
from lmlite.models.quantized import Quantized

_TOKENS = ("prompt", "prefix")  # labels of learned tokens: a model has one set, of plain names


def attach(
    method: Method, lm: LM, key: jax.Array, classes: int = 0, squares: Squares | None = None
) -> tuple[LM, dict[str, str]]:
    """The adapted model, equal to the base where the method starts at zero, and its labels.

    `classes` sizes a classification head; `squares` is for methods that choose by the training
    examples, computed only if asked for. What else holds is said of `join`.
    """
    _config(method, lm)  # first: a method that does not fit may not even find its modules
    return join(method, lm, method.inform(lm, method.init(lm, key, classes), squares))


def join(method: Method, lm: LM, added: Params) -> tuple[LM, dict[str, str]]:
    """The model with `added`, the method's own parameters, in place, and its labels.

    lm may be adapted already: the new method wraps the earlier ones, whose parameters are frozen.
    Trainable leaves are made float32. The adapted model's `config.max_positions` counts what is
    left for tokens beside a learned prefix. Raises UserError where the method does not fit the
    model.
    """
    method = _one_instance(method)
    virtual, config = method.virtual(), _config(method, lm)
    if lm.hooks and method.hooks() and not method.outermost:
        raise UserError(
            f"method {type(method).__name__} computes with a layer's kernel, and this model has "
            "adapters beside its kernels; attach it before them, or fold them"
        )
    slot = free_slot(lm) if method.hooks() else 0
    params, labels = _placed(method, lm, added, slot)
    train, frozen = tree.split(params, labels)
    _check_trainable(method, train)
    train = jax.tree.map(lambda x: x.astype(jnp.float32), train)
    adapted = dataclasses.replace(
        lm,
        params=tree.merge(params, train),
        config=config,
        hooks=tuple(dataclasses.replace(h, slot=slot) for h in method.hooks()) + lm.hooks,
        head=method.head or lm.head,
        virtual=virtual or lm.virtual,
        penalty=method.penalty or lm.penalty,
    )
    return adapted, labels


def _check_trainable(method: Method, train: Params) -> None:
    """Refuses to train what is held in integers."""
    for path, leaf in tree.flatten(train).items():
        if isinstance(leaf, Quantized):
            raise UserError(
                f"method {type(method).__name__} trains {path}, which is held in {leaf.format}; "
                "take one that adds parameters, such as lora, or load the model with quantize=''"
            )


@functools.lru_cache(maxsize=1024)
def _one_instance(method: Method) -> Method:
    """The first of all equal methods: bound methods, and with them compiled programs, are shared
    only by the same instance.
    """
    return method


def _config(method: Method, lm: LM):
    """lm's configuration with the positions that the method's learned tokens leave for others.

    Those that stand in the text are counted with its tokens: `LM.room` is what they leave.
    """
    virtual = method.virtual()
    if virtual is None:
        return lm.config
    if not isinstance(lm.config, StackConfig):
        raise UserError(f"method {type(method).__name__} needs a transformer")
    room = lm.config.max_positions - virtual.length
    if lm.virtual is not None or not 0 < virtual.length or not 0 < room:
        raise UserError(
            f"length={virtual.length} virtual tokens do not fit: the model has room for "
            f"{0 if lm.virtual else lm.config.max_positions - 1}, and at least 1 is needed"
        )
    if virtual.standing(lm.config):
        return lm.config
    return dataclasses.replace(lm.config, max_positions=room)


def _placed(method: Method, lm: LM, added: Params, slot: int) -> tuple[Params, dict[str, str]]:
    """lm's parameters with `added` under the names of its slot, and labels of all.

    The method's rules know plain names, and decide about the base and what is added alone.
    """
    labels = tree.label(tree.merge(lm.params, added), method.rules(lm))
    if not lm.hooks and lm.virtual is None and lm.head is None:
        return tree.merge(lm.params, added), labels
    base = bare(lm)
    plain = {path for path, label in labels.items() if path in base or label in _TOKENS}
    names = {path: slotted(path, slot if path not in plain else 0) for path in tree.flatten(added)}
    renamed = {names[path]: leaf for path, leaf in tree.flatten(added).items()}
    params = tree.merge(lm.params, tree.unflatten(renamed))
    known = {path: labels[path] for path in base} | {names[path]: labels[path] for path in names}
    return params, {path: known.get(path, tree.FROZEN) for path in tree.flatten(params)}


def bare(lm: LM) -> frozenset[str]:
    """Paths of the parameters of lm's module, without those of methods."""
    return frozenset(weights.shapes(lm.module))
