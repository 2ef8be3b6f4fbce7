"""Quality of predictions and how sure we are of it: pure functions of numpy arrays and texts."""

from lmlite.metrics.intervals import (
    Estimate,
    bootstrap,
    interval,
    mcnemar,
    paired_difference,
    spread,
    wilson,
)

__all__ = [
    "Estimate",
    "bootstrap",
    "interval",
    "mcnemar",
    "paired_difference",
    "spread",
    "wilson",
]
