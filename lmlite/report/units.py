"""Numbers as people read them: three significant digits at most and a unit. NaN is a dash."""

import math

from lmlite.metrics import Estimate

MISSING = "–"
_SI = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))
_BINARY = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))
_TIME = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))


def count(x: float) -> str:
    """1234567 -> '1.23M', 64 -> '64'."""
    return _scaled(x, _SI, space="")


def flops(x: float) -> str:
    """13.4e9 -> '13.4 G' (floating-point operations)."""
    return _scaled(x, _SI, space=" ")


def size(x: float) -> str:
    """Bytes: 3 * 2**20 -> '3 MiB'."""
    return _scaled(x, _BINARY, space=" ")


def seconds(x: float) -> str:
    """0.0123 -> '12.3 ms', 90 -> '1.5 min'."""
    return _scaled(x, _TIME, space=" ")


def percent(x: float) -> str:
    """0.9125 -> '91.3', without its sign."""
    return MISSING if math.isnan(x) else f"{100 * x:.1f}"


def decimal(x: float) -> str:
    """0.70049 -> '0.700'."""
    return MISSING if math.isnan(x) else f"{x:.3f}"


def value(x: float, unit: str) -> str:
    """A number in the unit of its measure, 'percent' or 'plain'."""
    if unit == "percent":
        return percent(x)
    return MISSING if math.isnan(x) else f"{x:.4g}"


def estimate(x: Estimate, unit: str = "percent") -> str:
    """A number and, where it has one, its interval: '91.2 [87.1, 94.3]'."""
    if math.isnan(x.low):
        return value(x.value, unit)
    return f"{value(x.value, unit)} [{value(x.low, unit)}, {value(x.high, unit)}]"


def _scaled(x: float, scale: tuple, space: str) -> str:
    if math.isnan(x) or x == 0:
        return MISSING if x else "0"
    # 999.9 of a unit would round up to 1000 of it, so it is already 1 of the next.
    factor, unit = next((s for s in scale if abs(x) >= 0.9995 * s[0]), scale[-1])
    return f"{_three_digits(x / factor)}{space}{unit}".strip()


def _three_digits(x: float) -> str:
    digits = max(0, 2 - math.floor(math.log10(abs(x))))
    text = f"{x:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
