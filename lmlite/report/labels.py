"""Names beside points of a scatter, none on top of another."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

_RINGS = (6, 10, 16, 24, 34, 46, 60, 76, 94, 114)  # points (1/72 inch) from the dot to its name
_ANGLES = np.deg2rad((0, 180, 35, -35, 145, -145, 90, -90, 65, -65, 115, -115))
_SIZE = 8  # of the letters, in points
_ADVANCE = 0.56  # of a letter, as a share of its size
_LEADER = 8  # a name farther than this is tied to its dot by a line
_HALO = [withStroke(linewidth=2.5, foreground="white")]


def place(
    ax: Axes, x: Sequence[float], y: Sequence[float], names: Sequence[tuple[str, str]]
) -> None:
    """Write names[i] = (text, colour) beside the dot (x[i], y[i]) of `ax`, whose limits are final.

    Each name in turn takes the nearest free place: clear of the dots, of the names that stand
    already and of the frame. Where none is free it takes the least bad.
    """
    scale = 72 / ax.figure.dpi  # pixels to points
    dots = ax.transData.transform(np.column_stack([x, y])) * scale
    frame = np.array(ax.get_window_extent().extents) * scale
    taken = [np.concatenate([dot - 3, dot + 3]) for dot in dots]
    for i in np.argsort(-np.asarray(y)):
        extent = np.array([_ADVANCE * len(names[i][0]), 1.1]) * _SIZE
        offset = _offset(dots[i], extent, taken, frame)
        taken.append(_box(dots[i] + offset, extent, offset[0]))
        _write(ax, (x[i], y[i]), *names[i], offset)


def _offset(dot, extent, taken, frame) -> np.ndarray:
    """From the dot to the near edge of its name [2], in points."""
    offsets = [r * np.array([np.cos(a), np.sin(a)]) for r in _RINGS for a in _ANGLES]
    costs = [_cost(_box(dot + o, extent, o[0]), taken, frame) + np.hypot(*o) for o in offsets]
    return offsets[int(np.argmin(costs))]


def _box(anchor, extent, side) -> np.ndarray:
    """Left, bottom, right, top of a name that hangs on `anchor` to its right, left or centre."""
    left = anchor[0] - extent[0] * _align(side)[0]
    bottom = anchor[1] - extent[1] / 2
    return np.array([left, bottom, left + extent[0], bottom + extent[1]])


def _align(side: float) -> tuple[float, str]:
    return (0.5, "center") if abs(side) < 1e-6 else (0.0, "left") if side > 0 else (1.0, "right")


def _cost(box, taken, frame) -> float:
    """Area that the name would share with what is taken or put outside the frame."""
    others = np.array(taken)
    shared = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    inside = np.minimum(box[2:], frame[2:]) - np.maximum(box[:2], frame[:2])
    hidden = np.prod(box[2:] - box[:2]) - np.prod(np.maximum(inside, 0))
    return 10 * (np.prod(np.maximum(shared, 0), axis=1).sum() + hidden)


def _write(ax, point, name, colour, offset) -> None:
    arrow = dict(arrowstyle="-", color=colour, lw=0.6, alpha=0.6, shrinkA=1, shrinkB=3)
    ax.annotate(
        name, point, xytext=offset, textcoords="offset points", fontsize=_SIZE, color=colour,
        ha=_align(offset[0])[1], va="center", path_effects=_HALO, zorder=5,
        arrowprops=arrow if np.hypot(*offset) > _LEADER else None,
    )  # fmt: skip
