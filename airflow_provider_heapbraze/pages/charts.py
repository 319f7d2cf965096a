"""Pictures as SVG, small and without a script: what they show stands beside them as text, too.

They have classes instead of colours; the style sheet knows both themes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Sequence

SPARK_WIDTH, SPARK_HEIGHT = 96, 24
WIDTH, HEIGHT = 720, 160
LEFT, TOP, BOTTOM = 64, 8, 20
GAP_SHARE = 0.25
FEW, BIG_DOT, SMALL_DOT = 40, 3, 1.5
# Half of the widest bar, and the first and the last value, have so much room at the edges.
MARGIN = 8
WIDEST = 2.0 * MARGIN
# Numbers at the axis that are nearer to each other would lie on each other, on a phone at least.
APART = 24
STEPS = (1, 2, 2.5, 5, 10)


def sparkline(values: Sequence[float]) -> Markup:
    """Draw a line of a few values, oldest first; nothing for fewer than two."""
    if len(values) < 2:  # noqa: PLR2004 - a line has two ends
        return Markup("")
    low, high = min(values), max(values)
    height = SPARK_HEIGHT - 6
    points = [
        (
            3 + place * (SPARK_WIDTH - 6) / (len(values) - 1),
            3 + (height - height * (value - low) / (high - low) if high > low else height / 2),
        )
        for place, value in enumerate(values)
    ]
    x, y = points[-1]
    # By hand, and not by format(): a list has a thousand of them, and they are numbers alone.
    return Markup(  # noqa: S704
        f'<svg class="spark" viewBox="0 0 {SPARK_WIDTH} {SPARK_HEIGHT}" width="{SPARK_WIDTH}" '
        f'height="{SPARK_HEIGHT}" aria-hidden="true"><polyline points="{_points(points)}"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/></svg>'
    )


def sizes(values: Sequence[float], labels: Sequence[str], dates: Sequence[str], caption: str) -> Markup:
    """Draw sizes over time, oldest first, from zero.

    :param labels: what is said of each value where the pointer is on it.
    :param dates: of each value; the first and the last are shown.
    :param caption: the picture in a sentence, for who does not see it.
    """
    top = _round_up(max(values, default=0))
    places = _places(len(values))
    points = [(x, _y(value, 0, top)) for x, value in zip(places, values, strict=True)]
    area = [(places[0], _y(0, 0, top)), *points, (places[-1], _y(0, 0, top))]
    dots = Markup("").join(
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>').format(
            x,
            y,
            BIG_DOT if len(points) <= FEW else SMALL_DOT,
            label,
        )
        for (x, y), label in zip(points, labels, strict=True)
    )
    body = Markup('<polygon class="area" points="{}"/><polyline class="line" points="{}"/>{}').format(
        _points(area), _points(points), dots
    )
    return _chart(body, [0, top / 2, top], dates, caption)


def changes(
    adds: Sequence[int], removes: Sequence[int], labels: Sequence[str], dates: Sequence[str], caption: str
) -> Markup:
    """Draw who entered, upwards, and who left, downwards, oldest first.

    :param labels: what is said of each run where the pointer is on it.
    :param dates: of each run; the first and the last are shown.
    :param caption: the picture in a sentence, for who does not see it.
    """
    most_removed = max(removes, default=0)
    top, bottom = _round_up(max(adds, default=0)), -_round_up(most_removed) if most_removed else 0
    places = _places(len(adds))
    step = places[1] - places[0] if len(places) > 1 else WIDEST
    width = max(1.0, min(WIDEST, step * (1 - GAP_SHARE)))
    bars = Markup("").join(
        Markup("<g><title>{}</title>{}{}</g>").format(
            label,
            _bar("adds", x, width, _y(add, bottom, top), _y(0, bottom, top)),
            _bar("removes", x, width, _y(0, bottom, top), _y(-remove, bottom, top)),
        )
        for x, add, remove, label in zip(places, adds, removes, labels, strict=True)
    )
    return _chart(bars, [bottom, 0, top], dates, caption)


def share_bar(start: float, end: float, whole: float, kind: str) -> Markup:
    """Draw a part of a whole as a bar.

    :param start: where the part begins, and ``end`` where it ends, 0 to ``whole``.
    :param kind: ``kept``, ``lost``, ``adds``, ``removes`` or ``limit``.
    """
    scale = 100 / whole if whole else 0
    left, width = start * scale, (end - start) * scale
    # What is there is seen, however little it is.
    width = max(width, 0.4) if end > start else 0
    return Markup(
        '<svg class="share" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="whole" width="100" height="10"/>'
        '<rect class="{}" x="{:.2f}" width="{:.2f}" height="10"/></svg>'
    ).format(kind, min(left, 100 - width), width)


def _chart(body: Markup, ticks: Sequence[float], dates: Sequence[str], caption: str) -> Markup:
    """Draw what is around a picture: lines and numbers from the first tick to the last, and two dates."""
    low, high = ticks[0], ticks[-1]
    zero = _y(0, low, high)
    places = {_y(tick, low, high): tick for tick in ticks}
    lines = Markup("").join(
        Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH, y, y)
        for y in places
    )
    numbers = Markup("").join(
        Markup('<text class="tick" x="{}" y="{:.1f}">{}</text>').format(LEFT - 8, y + 4, _short(abs(tick)))
        for y, tick in places.items()
        if not tick or abs(y - zero) >= APART
    )
    shown = Markup(
        '<text class="date" x="{}" y="{}">{}</text><text class="date last" x="{}" y="{}">{}</text>'
    )
    ends = shown.format(LEFT, HEIGHT - 4, dates[0], WIDTH, HEIGHT - 4, dates[-1] if len(dates) > 1 else "")
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}</svg>').format(
        WIDTH, HEIGHT, caption, lines + numbers, body, ends
    )


def _bar(kind: str, x: float, width: float, start: float, end: float) -> Markup:
    """Draw a bar around a place on the axis, from above to below."""
    if start == end:
        return Markup("")
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        kind, x - width / 2, start, width, max(1.0, end - start)
    )


def _places(count: int) -> list[float]:
    """Return where on the axis so many values are; a single one is in the middle."""
    room = WIDTH - LEFT - 2 * MARGIN
    if count == 1:
        return [LEFT + MARGIN + room / 2]
    return [LEFT + MARGIN + place * room / (count - 1) for place in range(count)]


def _y(value: float, low: float, high: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / ((high - low) or 1)


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _round_up(value: float) -> float:
    """Return a round number that is not less; 1 for nothing."""
    if value <= 1:
        return 1.0
    power = 10.0 ** (len(str(int(value))) - 1)
    bounds = [power * step for step in STEPS]
    return next(bound for bound in bounds if bound >= value)


def _short(value: float) -> str:
    """Return a number in few letters: 1.5k, 20M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"
