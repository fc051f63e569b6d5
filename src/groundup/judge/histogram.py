"""A bar chart as a few lines of SVG, which stand in a page as well as in a file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT, BOTTOM, TOP = 640, 220, 34, 22
BLUE, GRAY = "#3b6fb6", "#888888"


def histogram(bars: Sequence[tuple[str, int]], what: str) -> str:
    """Draw labelled counts.

    Args:
        bars: label and count of each bar.
        what: what is counted, for those who hear the picture read.
    """
    highest = max((count for _, count in bars), default=0) or 1
    step = WIDTH / max(1, len(bars))
    room = HEIGHT - BOTTOM - TOP
    words = ", ".join(f"{label}: {count}" for label, count in bars)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="12" text-anchor="middle" width="{WIDTH}">',
        f"<title>{escape(f'distribution of the {what}: {words}')}</title>",
    ]
    for place, (label, count) in enumerate(bars):
        tall = room * count / highest
        left, middle, top = place * step + step * 0.1, (place + 0.5) * step, HEIGHT - BOTTOM - tall
        parts += [
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{step * 0.8:.1f}" height="{tall:.1f}" '
            f'fill="{BLUE}"/>',
            f'<text x="{middle:.1f}" y="{top - 6:.1f}" fill="{GRAY}">{count}</text>',
            f'<text x="{middle:.1f}" y="{HEIGHT - 14}" fill="{GRAY}">{escape(label)}</text>',
        ]
    floor = HEIGHT - BOTTOM
    parts.append(f'<path d="M0 {floor}H{WIDTH}" stroke="{GRAY}"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"
