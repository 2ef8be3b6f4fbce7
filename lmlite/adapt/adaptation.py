"""A method after its fit: all that turns the base model into the tuned one."""

import dataclasses

from lmlite import tree
from lmlite.adapt.attachment import bare, join
from lmlite.adapt.hooks import slotted
from lmlite.adapt.method import Method, Params, free_slot
from lmlite.adapt.probe import LinearProbe
from lmlite.errors import UserError
from lmlite.models.lm import LM


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """A method with its parameters, those it added and those of the base's that it replaced.

    `probe` among the parameters of a method without a head is the head that was trained beside it
    (`attach_headed`).
    """

    method: Method
    params: Params

    @classmethod
    def of(cls, method: Method, lm: LM, params: Params) -> "Adaptation":
        """What `params`, of the method attached to `lm` and fitted, have that lm's have not."""
        before, base = tree.flatten(lm.params), bare(lm)
        ending = slotted("", free_slot(lm) if method.hooks() else 0)
        own = {
            path if path in base else path.removesuffix(ending): leaf
            for path, leaf in tree.flatten(params).items()
            if before.get(path) is not leaf  # fitting hands frozen arrays through
        }
        return cls(method, tree.unflatten(own))

    def on(self, lm: LM) -> LM:
        """The adapted model; `lm` stays as it is and shares its arrays.

        Adaptations stack: those that hook modules, at most one with learned tokens and one with a
        head. Raises UserError where this one does not fit the model.
        """
        own = dict(self.params)
        if self.method.head is None and "probe" in own:
            lm, _ = join(LinearProbe(), lm, {"probe": own.pop("probe")})
        return join(self.method, lm, own)[0]

    def folded(self, lm: LM) -> LM:
        """The tuned model as plain weights, in the base's dtypes (summed in float32).

        Raises UserError where the method has no such form, or lm has adapters beside its weights.
        """
        name = type(self.method).__name__
        if not self.method.foldable:
            raise UserError(f"method {name} does not fold into weights; keep it as an adapter")
        if lm.hooks:
            raise UserError(f"method {name} cannot fold past other adapters; fold those first")
        adapted = self.on(lm)
        params = self.method.merge(adapted.params)
        base = tree.flatten(lm.params)
        kept = {p: x.astype(base[p].dtype) if p in base else x
                for p, x in tree.flatten(params).items()}  # fmt: skip
        return dataclasses.replace(lm, params=tree.unflatten(kept), head=adapted.head)
