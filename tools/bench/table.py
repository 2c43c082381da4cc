"""Tables for people: columns aligned, numbers to the right."""

from collections.abc import Sequence
from statistics import median


def render(rows: Sequence[Sequence[str]]) -> str:
    """Lay out rows of equal length; the first one is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [_line(row, widths) for row in rows]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])


def seconds(values: Sequence[float]) -> str:
    """Write a median, with the best in parentheses."""
    return f"{median(values):.2f} ({min(values):.2f}) s"


def milliseconds(values: Sequence[float]) -> str:
    """Write a median of seconds in milliseconds, with the best in parentheses."""
    return f"{median(values) * 1e3:.1f} ({min(values) * 1e3:.1f}) ms"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Compare two medians, if that can be done."""
    return f"{median(ours) / median(theirs):.2f}" if median(theirs) else "—"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        text.ljust(width) if column == 0 else text.rjust(width)
        for column, (text, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join([first, *others]).rstrip()
