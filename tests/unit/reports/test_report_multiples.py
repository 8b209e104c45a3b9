"""Small multiples of a sweep, and how sure the picks are."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from app.core.contracts.selection_request import Clip
from app.core.contracts.statistics import SweepCurve
from app.reports.figures.multiples import draw_stability, draw_sweep

SVG = "{http://www.w3.org/2000/svg}"


def curve(penalty: float, normalize: str | Clip, log_det: list[float]) -> SweepCurve:
    return SweepCurve(
        conflict_penalty=penalty,
        early_stop_ratio=None,
        alpha=1.0,
        normalize=normalize,
        selected=len(log_det),
        certificate=0.7,
        shared=0.5,
        rank=list(range(1, len(log_det) + 1)),
        log_det=log_det,
    )


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314 - our own


def test_each_setting_has_a_plot_that_is_named_by_what_differs() -> None:
    points = [curve(0.0, "unit", [1.0, 1.5]), curve(0.1, "unit", [1.0, 1.4]), curve(0.1, Clip(clip=0.9), [])]
    figure = draw_sweep(points, 640.0)
    said = texts(figure.svg)
    for name in ("lambda 0, lengths unit", "lambda 0.1, lengths unit", "lambda 0.1, lengths clip 0.9"):
        assert name in said
    assert figure.svg.count('class="line series-0"') == len(points)
    assert [row[4] for row in figure.table.rows] == ["2", "2", "0"]
    assert "70.0%" in figure.caption


def test_settings_that_are_all_the_same_are_named_by_lambda() -> None:
    assert "lambda 0.1" in texts(draw_sweep([curve(0.1, "unit", [1.0])], 300.0).svg)


def test_the_sure_and_the_chance_picks_are_counted() -> None:
    figure = draw_stability([1, 0, 0, 0, 2, 0, 0, 0, 0, 5], 400.0)
    assert "5 of 8 picks" in figure.caption
    assert "3 by less than half" in figure.caption
    assert figure.table.rows[0] == ["0% to 10%", "1"]
    assert len(figure.table.rows) == 10
