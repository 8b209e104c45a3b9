"""A proof's report: one HTML file that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from app.proofs.words import UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.core.contracts.proof_result import Comparison, Premise
    from app.proofs.schemas import ProofResponse

WIDTH, BAR_HEIGHT, MARGIN = 420.0, 30.0, 110.0  # as wide as a phone can show in letters that can be read
SCATTER = 320.0


@dataclass(frozen=True, slots=True)
class Bar:
    """An interval in a drawing, in pixels."""

    label: str
    y: float
    low: float
    middle: float
    high: float
    verdict: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A number below a drawing, in pixels."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Interval:
    """The intervals of one metric, with 0 and the smallest effect."""

    metric: str
    unit: str
    bars: Sequence[Bar]
    ticks: Sequence[Tick]
    zero: float
    band: tuple[float, float]
    height: float


@dataclass(frozen=True, slots=True)
class Point:
    """A subset in the scatter, in pixels."""

    x: float
    y: float
    share: float


def render(proof: ProofResponse) -> str:
    """The report as HTML. All that a client wrote is escaped by the template engine."""
    return (
        _environment()
        .get_template("proof.html.j2")
        .render(
            proof=proof,
            intervals=[_intervals(metric, proof.comparisons) for metric in dict.fromkeys(_metrics(proof.comparisons))],
            points=[] if proof.premise is None else _points(proof.premise),
            width=WIDTH,
            scatter=SCATTER,
            style=files("app.proofs").joinpath("templates/proof.css").read_text("utf-8"),
        )
    )


def _metrics(comparisons: Sequence[Comparison]) -> list[str]:
    return [one.metric for one in comparisons if one.interval is not None]


def _intervals(metric: str, comparisons: Sequence[Comparison]) -> Interval:
    found = [one for one in comparisons if one.metric == metric and one.interval is not None]
    ends = [abs(end) for one in found for end in one.interval or ()]
    effect = found[0].smallest_effect
    reach = 1.25 * max([*ends, effect])  # so that the numbers below the ends fit

    def place(value: float) -> float:
        return round(MARGIN + (WIDTH - MARGIN) * (value + reach) / (2 * reach), 1)

    bars = [
        Bar(
            label=one.arm,
            y=(number + 0.5) * BAR_HEIGHT,
            low=place((one.interval or (0.0, 0.0))[0]),
            middle=place(one.difference or 0.0),
            high=place((one.interval or (0.0, 0.0))[1]),
            verdict=one.verdict,
        )
        for number, one in enumerate(found)
    ]
    far = max([*ends, effect])
    return Interval(
        metric=metric,
        unit=UNITS.get(metric, metric),
        bars=bars,
        ticks=[Tick(place(value), f"{value:+.3f}" if value else "0") for value in (-far, 0.0, far)],
        zero=place(0.0),
        band=(place(-effect), place(effect)),
        height=BAR_HEIGHT * len(bars),
    )


def _points(premise: Premise) -> list[Point]:
    if not premise.points:
        return []
    xs, ys = [point.log_det for point in premise.points], [point.gain for point in premise.points]

    def scaled(value: float, among: Sequence[float]) -> float:
        low, high = min(among), max(among)
        return 10 + (SCATTER - 20) * ((value - low) / (high - low) if high > low else 0.5)

    return [
        Point(round(scaled(x, xs), 1), round(SCATTER - scaled(y, ys), 1), point.selected_share)
        for x, y, point in zip(xs, ys, premise.points, strict=True)
    ]


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("app.proofs"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
