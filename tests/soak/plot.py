"""Curves over time as a small SVG, without a library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Chart", "draw"]

WIDTH, HEIGHT, LEFT, GAP = 900, 120, 70, 40
COLORS = ("#1f6f8b", "#c8553d", "#588157")


class Chart(NamedTuple):
    """Curves with one scale. A curve has a value, or None, for each of ``times``."""

    title: str
    curves: dict[str, Sequence[float | None]]


def draw(times: Sequence[float], charts: Sequence[Chart], marks: Sequence[float] = ()) -> str:
    """The SVG. ``marks`` are moments at which something was done, as thin lines."""
    height = len(charts) * (HEIGHT + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + LEFT + 20} {height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    end = max(times, default=0) or 1
    for index, chart in enumerate(charts):
        top = GAP + index * (HEIGHT + GAP)
        parts += draw_chart(chart, times, end, marks, top)
    bottom = height - GAP + 18
    parts.append(f'<text x="{LEFT}" y="{bottom}">0 s</text>')
    parts.append(f'<text x="{LEFT + WIDTH}" y="{bottom}" text-anchor="end">{end:.0f} s</text>')
    return "\n".join([*parts, "</svg>", ""])


def draw_chart(
    chart: Chart, times: Sequence[float], end: float, marks: Sequence[float], top: int
) -> list[str]:
    most = max((v for curve in chart.curves.values() for v in curve if v is not None), default=0)
    most = most or 1
    right, bottom = LEFT + WIDTH, top + HEIGHT
    parts = [f'<text x="{LEFT}" y="{top - 6}" font-weight="bold">{escape(chart.title)}</text>']
    for value, y in ((most, top), (0, bottom)):
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{value:.4g}</text>')
        parts.append(f'<path d="M{LEFT} {y}H{right}" stroke="#ccc"/>')
    for at in marks:
        parts.append(f'<path d="M{LEFT + at / end * WIDTH:.1f} {top}V{bottom}" stroke="#eadfb8"/>')
    for number, (name, curve) in enumerate(chart.curves.items()):
        color = COLORS[number % len(COLORS)]
        points = " ".join(
            f"{LEFT + at / end * WIDTH:.1f},{bottom - value / most * HEIGHT:.1f}"
            for at, value in zip(times, curve)
            if value is not None
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}"/>')
        x = right - 150 * (len(chart.curves) - number - 1)
        parts.append(
            f'<text x="{x}" y="{top - 6}" text-anchor="end" fill="{color}">{escape(name)}</text>'
        )
    return parts
