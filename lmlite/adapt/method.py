"""What a tuning method is: rules that label parameters, hooks that add some, a way to fold them.

A method is a frozen dataclass of its hyperparameters. The base class trains nothing and adds
nothing; a method overrides what it needs.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from lmlite import tree
from lmlite.adapt.hooks import Hook
from lmlite.errors import UserError
from lmlite.models.lm import LM
from lmlite.models.tokens import Tokens
from lmlite.models.virtual import Virtual
from lmlite.runtime import fold_name

Params = dict[str, Any]
# Paths of leaves -> {path: mean over the training examples of its squared gradient}.
Squares = Callable[[Sequence[str]], dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Method:
    """Base of the tuning methods.

    penalty: where training adds something to the loss, params -> scalar.
    foldable: whether `merge` turns the tuned model into plain weights of the base architecture.
    outermost: whether it can wrap modules that another method wraps already.
    head: where the method classifies by a head of its own, (network, params, states [..., D]) ->
    logits [..., C]; None reads the model's vocabulary.
    """

    foldable: ClassVar[bool] = True
    outermost: ClassVar[bool] = True
    head: ClassVar[Callable | None] = None
    penalty: ClassVar[Callable | None] = None

    def rules(self, lm: LM) -> tree.Rules:
        """Ordered (regex, label) partition rules; 'frozen' does not train."""
        raise NotImplementedError

    def groups(self, lm: LM) -> tuple:
        """What the labels learn by that is not the same for all: `Optimizer.groups` for lm."""
        return ()

    def hooks(self) -> tuple[Hook, ...]:
        """Interceptors that add the method's computation to the base modules."""
        return ()

    def virtual(self) -> Virtual | None:
        """Learned tokens that the method puts before every input."""
        return None

    def init(self, lm: LM, key: jax.Array, classes: int) -> Params:
        """The method's own parameters, float32: by default what its hooks create.

        A leaf under the path of one of lm's replaces it.
        """
        return added_params(lm, key, self.hooks()) if self.hooks() else {}

    def inform(self, lm: LM, added: Params, squares: Squares | None) -> Params:
        """What `init` made, chosen anew by the training examples where the method looks at them."""
        return added

    def following(self, params: Params) -> "Following | None":
        """What is trained next, from the base, once training has ended with `params`."""
        return None

    def form(self) -> "Method | None":
        """Methods of equal form can train in one step: this one without what only sizes or scales.

        None where it trains alone only, because what it computes hangs on more than its parameters.
        """
        return self

    def stacked(
        self, methods: Sequence["Method"], paths: Sequence[str]
    ) -> tuple["Method", list[dict[str, float]]]:
        """The method whose hooks run each of `methods` (of this form), and factors {path: f} a one.

        Its parameters are theirs, filled up with zeros to the largest and multiplied by f: what is
        filled up must change no output and get no gradient. paths: of the trainable leaves.
        """
        return self, [{} for _ in methods]

    def kept(self, lm: LM, params: Params, moved: Params) -> Params:
        """What must be kept beside the base model to answer as `params` do: what has `moved`."""
        return moved

    def merge(self, params: Params) -> Params:
        """Parameters of the base architecture that compute the same (foldable methods)."""
        return params


class Following(NamedTuple):
    """A method with the parameters that it starts from, and the rate that it learns by."""

    method: Method
    added: Params
    learning_rate: float


def free_slot(lm: LM) -> int:
    """The slot of the next method that hooks modules: 0 where there is none yet."""
    return max((hook.slot + 1 for hook in lm.hooks), default=0)


def added_params(lm: LM, key: jax.Array, hooks: tuple[Hook, ...]) -> Params:
    """The parameters that `hooks` ask for in lm's module, float32.

    The model is traced for their names and shapes, never run. A leaf's values depend on `key` and
    its own path alone. Raises UserError where a hook matches no module.
    """
    wanted: dict[str, tuple[Callable, tuple[int, ...]]] = {}
    fired = set()

    def watch(hook):
        def seen(path, init, shape):
            fired.add(hook)
            wanted[path] = init, shape

        return dataclasses.replace(hook, seen=seen, slot=free_slot(lm))

    watched = tuple(watch(hook) for hook in hooks)
    network = dataclasses.replace(lm.network, hooks=watched + lm.hooks)
    ids = jnp.zeros((1, 1), jnp.int32)
    jax.eval_shape(network.init, key, ids, Tokens.from_mask(jnp.ones((1, 1), bool)))
    if idle := [hook.pattern for hook in hooks if hook not in fired]:
        raise UserError(f"targets {idle[0]!r} match no module of this model; see its paths")
    return tree.unflatten(
        {path: init(fold_name(key, path), shape) for path, (init, shape) in wanted.items()}
    )


def fold(params: Params, names: Sequence[str], into: Callable[..., Params]) -> Params:
    """`params` with every module's own leaves `names` gone and folded into its others.

    into(path, leaves, *own) returns what replaces some of the module's `leaves` (kernel and bias);
    `own` are the folded ones in the order of `names`. Dtypes stay as they were.
    """
    flat = tree.flatten(params)
    for owner in owners(params, names[0]):
        own = [flat.pop(f"{owner}/{name}") for name in names]
        paths = {name: f"{owner}/{name}" for name in ("kernel", "bias")}
        leaves = {name: flat[path] for name, path in paths.items() if path in flat}
        for name, leaf in into(owner, leaves, *own).items():
            flat[paths[name]] = leaf.astype(leaves[name].dtype)
    return tree.unflatten(flat)


def owners(params: Params, name: str) -> list[str]:
    """Paths of the modules that hold a leaf `name`."""
    ending = f"/{name}"
    return [path.removesuffix(ending) for path in tree.flatten(params) if path.endswith(ending)]
