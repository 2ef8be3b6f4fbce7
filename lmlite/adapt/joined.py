"""Several methods in one arm, trained together, such as LoRA with a prompt."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping

from lmlite import tree
from lmlite.adapt.method import Method
from lmlite.errors import UserError


@dataclasses.dataclass(frozen=True)
class Joined(Method):
    """Every part adds and trains what it does alone; where two wrap a module, the first is outside.

    At most one part has learned tokens, one a head and one a penalty. The result is not folded.
    Raises UserError for fewer than two parts, or two of what there can be one of.
    """

    foldable = False
    parts: tuple[Method, ...] = ()

    def __post_init__(self):
        if len(self.parts) < 2:
            raise UserError(f"parts={self.parts} names fewer than two methods; name one by itself")
        for name in ("virtual", "head", "penalty"):
            self._only(name)
        if twice := [p for p in self.parts if type(p).following is not Method.following]:
            raise UserError(f"parts: {type(twice[0]).__name__} trains twice; use it by itself")

    @property
    def outermost(self) -> bool:
        """Whether all parts are."""
        return all(part.outermost for part in self.parts)

    @property
    def head(self) -> Callable | None:
        """The head of the part that has one."""
        return self._only("head")

    @property
    def penalty(self) -> Callable | None:
        """The penalty of the part that has one."""
        return self._only("penalty")

    def virtual(self):
        """The learned tokens of the part that has them."""
        return self._only("virtual")

    def rules(self, lm):
        """Those of the parts in order, the first match deciding; what none trains is frozen."""
        rules = dict.fromkeys(rule for part in self.parts for rule in part.rules(lm))
        last = (".*", tree.FROZEN)
        some = [rule for rule in rules if rule[0] != ".*"]
        every = [rule for rule in rules if rule[0] == ".*" and rule != last]
        return (*some, *(every[:1] or [last]))

    def groups(self, lm):
        """Those of all parts."""
        return tuple(group for part in self.parts for group in part.groups(lm))

    def hooks(self):
        """Those of all parts."""
        return tuple(hook for part in self.parts for hook in part.hooks())

    def init(self, lm, key, classes):
        """What each part alone would add, with the same key: paths differ, and with them draws.

        Raises UserError where two parts add the same leaf, or one that computes with a kernel
        stands before another on the same module.
        """
        added = [part.init(lm, key, classes) for part in self.parts]
        moved = set().union(*map(tree.flatten, added)) & set(tree.flatten(lm.params))
        if self.penalty and moved:
            raise UserError(
                f"parts: one starts {min(moved)} elsewhere than the pretrained model, to which the "
                "penalty would pull it back; keep one of them"
            )
        for (outer, above), (inner, below) in itertools.combinations(
            zip(self.parts, map(tree.flatten, added), strict=True), 2
        ):
            names = type(outer).__name__, type(inner).__name__
            if both := sorted(above.keys() & below.keys()):
                raise UserError(f"parts: {names[0]} and {names[1]} both add {both[0]}; keep one")
            if not outer.outermost and (both := sorted(_modules(above) & _modules(below))):
                way = f"name {names[1]} first" if inner.outermost else "keep one of them"
                raise UserError(
                    f"parts: {names[0]} computes with the kernel of {both[0]}, which {names[1]} "
                    f"changes; {way}"
                )
        return tree.merge(*added)

    def inform(self, lm, added, squares):
        """Each part in turn."""
        for part in self.parts:
            added = part.inform(lm, added, squares)
        return added

    def kept(self, lm, params, moved):
        """What each part makes of it, in turn."""
        for part in self.parts:
            moved = part.kept(lm, params, moved)
        return moved

    def form(self):
        """Trains alone only."""
        return None

    def _only(self, name: str):
        """What one part has under `name`, a method or an attribute; None where none has it."""
        all_of = [getattr(part, name) for part in self.parts]
        all_of = [one() for one in all_of] if name == "virtual" else all_of
        found = [one for one in all_of if one is not None]
        if len(found) > 1:
            kinds = [type(part).__name__ for part in self.parts]
            raise UserError(f"parts {kinds}: more than one has a {name}; keep one of them")
        return found[0] if found else None


def _modules(leaves: Mapping) -> set[str]:
    return {path.rpartition("/")[0] for path in leaves}
