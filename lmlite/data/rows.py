"""Which shapes batches of items have: the length of rows, their number, and which item is in which.

Every shape costs a compilation and everything that is not an item is padding.
"""

from collections.abc import Sequence

from lmlite.data.item import Item
from lmlite.errors import UserError

BATCH_TOKENS = 1024  # where weights do not change: enough for full-speed products, little padding
_MULTIPLE = 32  # of the row length
_SHOWN = 256  # items that tell which length is best
_DOUBLES = 2048  # tokens of a row whose attention costs about as much as all else (135M parameters)


def layout(items: Sequence[Item], context: int, tokens: int = BATCH_TOKENS) -> tuple[int, int]:
    """(length, rows) of batches of about `tokens` tokens that hold the items at the least cost.

    Rows longer than the longest item can be filled better, and batches of equally many rows leave
    no half-empty last one; attention makes long rows dearer. Raises as `row_length`.
    """
    least = row_length(items, context)
    extents = [item.extent for item in items]
    shown = extents[:: -(-len(extents) // _SHOWN)]

    lengths = range(least, max(least, min(2 * least, tokens)) + 1, _MULTIPLE)
    length = min(lengths, key=lambda length: cost(len(first_fit(shown, length)), length))
    need = len(first_fit(extents, length))
    batches = -(-need // max(1, tokens // length))
    return length, -(-need // batches)


def cost(rows: int, length: int) -> float:
    """What a model's pass over so many rows of so many tokens takes, in tokens of short rows."""
    return rows * length * (1 + length / _DOUBLES)


def row_length(items: Sequence[Item], context: int, multiple: int = _MULTIPLE) -> int:
    """T for these items: the longest, rounded up. Raises UserError for one past `context`."""
    longest = max((item.extent for item in items), default=0)
    ends = (max(int(item.position.max(initial=0)) + 1, len(item.source)) for item in items)
    last = max(ends, default=0)
    if last > context:
        raise UserError(
            f"a prompt of {last} tokens is longer than the model's context of {context}; "
            "use fewer demonstrations or shorter inputs"
        )
    return max(1, -(-longest // multiple)) * multiple


def most_reads(items: Sequence[Item], size: int, multiple: int = 8) -> int:
    """U with which any `size` of the items can be packed, a multiple of `multiple`."""
    most = sum(sorted(len(item.reads) for item in items)[-size:])
    return -(-most // multiple) * multiple


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of indices whose lengths sum to at most `capacity`: longest first, first that fits."""
    least = min(lengths, default=0)
    rows: list[list[int]] = []
    room: dict[int, int] = {}  # of the rows that may take one more
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        row = next((r for r, space in room.items() if space >= lengths[i]), len(rows))
        if row == len(rows):
            rows.append([])
            room[row] = capacity
        rows[row].append(i)
        room[row] -= lengths[i]
        if room[row] < least:
            del room[row]
    return rows
