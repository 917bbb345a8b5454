"""Bars as SVG: a group for each tenant, a bar for each policy, on a scale of powers of ten."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

COLOURS = ("#2563eb", "#9ca3af", "#f59e0b")
BAR, GAP, HEIGHT, LEFT, TOP = 12, 14, 240, 48, 64


def bars(title: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """``groups``: policy → tenant → a number of at least 1. Every policy has the same tenants."""
    tenants = list(next(iter(groups.values())))
    top = math.ceil(math.log10(max(max(values.values()) for values in groups.values())))
    step = BAR * len(groups) + GAP
    width = LEFT + step * len(tenants) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{TOP + HEIGHT + 40}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
    ]
    for place, (policy, colour) in enumerate(zip(groups, COLOURS, strict=False)):
        x = LEFT + 130 * place
        parts += [
            f'<rect x="{x}" y="32" width="12" height="12" fill="{colour}"/>',
            f'<text x="{x + 18}" y="43">{escape(policy)}</text>',
        ]
    for power in range(top + 1):
        y = TOP + HEIGHT * (1 - power / top)
        parts += [
            f'<line x1="{LEFT}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>',
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10**power}</text>',
        ]
    for number, tenant in enumerate(tenants):
        x = LEFT + GAP + step * number
        for place, (values, colour) in enumerate(zip(groups.values(), COLOURS, strict=False)):
            tall = HEIGHT * math.log10(max(1.0, values[tenant])) / top
            parts.append(
                f'<rect x="{x + BAR * place}" y="{TOP + HEIGHT - tall:.1f}" width="{BAR - 2}"'
                f' height="{tall:.1f}" fill="{colour}"/>'
            )
        parts.append(
            f'<text x="{x}" y="{TOP + HEIGHT + 18}">{escape(tenant.rpartition("-")[2])}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"
