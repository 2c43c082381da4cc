"""Plots without a library: one horizontal bar a contender, cut into phases, as SVG."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

_WIDTH: Final = 960
_LEFT: Final = 170
_BAR: Final = 34
_GAP: Final = 22
_TOP: Final = 56
_COLOURS: Final = (
    *("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#eeca3b", "#b279a2", "#ff9da6"),
    *("#9d755d", "#8c8c8c", "#1f6f8b", "#c2a83e", "#7a5195", "#6b9080", "#d1495b"),
)


def stacked_bars(title: str, bars: Mapping[str, Mapping[str, float]]) -> str:
    """Draw phases in seconds, one bar a name; all bars have one scale and phases keep their colours."""
    scale = (_WIDTH - _LEFT - 80) / max(sum(phases.values()) for phases in bars.values())
    names = list(dict.fromkeys(phase for phases in bars.values() for phase in phases))
    legend_top = _TOP + len(bars) * (_BAR + _GAP) + 10
    height = legend_top + 20 * ((len(names) + 3) // 4) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        _text(16, 28, title, size=17),
    ]
    for row, (name, phases) in enumerate(bars.items()):
        parts += _bar(name, phases, names, _TOP + row * (_BAR + _GAP), scale)
    parts += _legend(names, legend_top)
    return "\n".join([*parts, "</svg>", ""])


def _bar(name: str, phases: Mapping[str, float], names: Sequence[str], top: int, scale: float) -> list[str]:
    parts = [_text(16, top + 22, name)]
    x = float(_LEFT)
    for phase, took in phases.items():
        colour = _COLOURS[names.index(phase) % len(_COLOURS)]
        hover = escape(f"{phase}: {took:.2f} s")
        parts.append(
            f'<rect x="{x:.1f}" y="{top}" width="{took * scale:.1f}" height="{_BAR}" fill="{colour}">'
            f"<title>{hover}</title></rect>"
        )
        x += took * scale
    parts.append(_text(x + 8, top + 22, f"{sum(phases.values()):.2f} s"))
    return parts


def _legend(names: Sequence[str], top: int) -> list[str]:
    parts = []
    for index, name in enumerate(names):
        x, y = 16 + (index % 4) * 235, top + 20 * (index // 4)
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{_COLOURS[index % len(_COLOURS)]}"/>')
        parts.append(_text(x + 18, y + 11, name))
    return parts


def _text(x: float, y: float, text: str, size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}">{escape(text)}</text>'
