"""FLOPs that XLA's analysis of a compiled program leaves out."""

import math
from typing import Any


def repeated_flops(jaxpr: Any) -> float:
    """FLOPs of matrix products in loops beyond the first turn: XLA's analysis counts one turn.

    Of a loop's conditional, every branch is counted, so skipped blocks make this an upper bound.
    """

    def products(jaxpr, turns):
        """(products of all turns, products if every loop turned once)."""
        total = once = 0.0
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "dot_general":
                (contracted, _), _ = eqn.params["dimension_numbers"]
                depth = math.prod(eqn.invars[0].aval.shape[i] for i in contracted)
                flops = 2.0 * depth * eqn.outvars[0].aval.size
                total, once = total + turns * flops, once + flops
            length = eqn.params["length"] if eqn.primitive.name == "scan" else 1
            for inner in _inner_jaxprs(eqn.params.values()):
                inside = products(inner, turns * length)
                total, once = total + inside[0], once + inside[1]
        return total, once

    total, once = products(jaxpr, 1)
    return total - once


def _inner_jaxprs(values: Any) -> Any:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _inner_jaxprs(value)
        elif hasattr(value, "eqns"):
            yield value
        elif hasattr(value, "jaxpr"):
            yield value.jaxpr
