"""Figures: what they draw, what they say, and that nothing in a dataset becomes markup."""

from __future__ import annotations

import uuid
from itertools import accumulate, pairwise
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.contracts.statistics import Statistics
from app.reports.figures import FIGURES, Figure, draw_figures
from app.reports.figures.axes import Range
from app.results.schemas import Conflicts, Curve

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</text><script>alert(1)</script>\x00\x0b\ufffe& \"'"
ONE_SET = {"rows": 10, "counts": [3, 7], "mean_conflict": 0.1, "conflicting_share": 0.3}
STATISTICS: dict[str, Any] = {
    "conflict_before_after": {"edges": [-0.5, 0.0, 0.5], "sets": dict.fromkeys(("all", "random", "picked"), ONE_SET)},
    "lengths": {
        "edges": [0, 10, 20],
        "all": {"counts": [4, 6], "mean": 11.0, "median": 12.0},
        "picked": {"counts": [1, 2], "mean": 13.0, "median": 14.0},
    },
    "sources": {"column": "source", "values": [{"value": HOSTILE, "all": 3, "picked": 1}], "other": None},
    "epsilon_conflict": {"rank": [1, 2], "conflict": [0.0, 0.2], "epsilon": [0.0, -0.1]},
    "early_stop": {"ratio": 0.5, "requested": False, "threshold": 1.0, "kept": 1},
    "sweep": [
        {
            "conflict_penalty": 0.1,
            "early_stop_ratio": None,
            "alpha": 1.0,
            "normalize": "unit",
            "selected": 2,
            "certificate": 0.6,
            "shared": 1.0,
            "rank": [1, 2],
            "log_det": [2.0, 3.0],
        }
    ],
    "stability": [0] * 9 + [2],
}


def curve(gains: list[float], *baselines: str) -> Curve:
    line = {
        "selected": len(gains),
        "rank": list(range(1, len(gains) + 1)),
        "log_det": list(accumulate(gains)),
        "marginal_gains": gains,
    }
    repeated = {**line, "runs": 3, "log_det_std": [0.5] * len(gains)}
    return Curve.model_validate({"job_id": uuid.uuid4(), **line, "baselines": dict.fromkeys(baselines, repeated)})


def figures(found: Curve, width: float = 500, **changed: Any) -> dict[str, Figure]:
    document = {"job_id": uuid.uuid4(), **STATISTICS, **changed}
    conflicts = Conflicts.model_validate(
        {
            "job_id": uuid.uuid4(),
            "mean": 0,
            "max": 0,
            "positive_fraction": 0,
            "quantiles": {},
            "histogram": {"edges": [], "counts": []},
            "spearman_conflict_gain": None,
            "spearman_conflict_epsilon": 0.8,
            "baselines": {},
        }
    )
    drawn = draw_figures(found, conflicts, Statistics.model_validate(document), "spice", width, width)
    return {figure.name: figure for figure in drawn}


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314 - the service's own drawing


def texts(figure: Figure) -> list[str]:
    return [element.text or "" for element in parsed(figure.svg).iter(f"{SVG}text")]


def test_all_figures_are_drawn_with_words_and_a_table_that_is_whole() -> None:
    drawn = figures(curve([2.0, 1.0], "random"))
    assert tuple(drawn) == FIGURES
    for figure in drawn.values():
        root = parsed(figure.svg)
        assert (root.get("role"), root.get("width")) == ("img", "500")
        assert root.get("aria-label")
        assert figure.caption.endswith(".")
        assert figure.table.rows
        assert all(len(row) == len(figure.table.columns) for row in figure.table.rows)


def test_a_pointer_finds_marks_inside_the_drawing_that_ask_for_the_rows_behind_them() -> None:
    drawn = figures(curve([2.0, 1.0], "random"))
    for name in set(FIGURES) - {"sweep"}:
        figure = drawn[name]
        left, top, width, height = (float(part) for part in (parsed(figure.svg).get("viewBox") or "").split())
        assert figure.marks, name
        assert all(left <= mark.x <= width and top <= mark.y <= height and mark.text for mark in figure.marks), name
    second = {"first_rank": "2", "last_rank": "2"}
    assert [mark.rows for mark in drawn["gains"].marks][1] == second
    assert drawn["epsilon"].marks[1].text == "pick 2: conflict 0.2, epsilon \N{MINUS SIGN}0.1 nats"
    assert [mark.rows for mark in drawn["curve"].marks if "by spice" in mark.text][1] == second
    assert all(not mark.rows for mark in drawn["curve"].marks if "by random" in mark.text), "whose rows are not kept"
    assert drawn["sources"].marks[0].rows == {"source": HOSTILE}
    assert drawn["lengths"].marks[1].text == "10 to 19 tokens: all 60.0%, picked 66.7%"


def test_figures_of_conflict_are_folded_where_there_is_none() -> None:
    assert not any(figure.folded for figure in figures(curve([2.0, 1.0])).values())
    none = {"rows": 10, "counts": [0, 10], "mean_conflict": 0.0, "conflicting_share": 0.0}
    calm = figures(
        curve([2.0, 1.0]),
        epsilon_conflict={"rank": [1, 2], "conflict": [0.0, 0.0], "epsilon": [-0.0, -0.1]},
        conflict_before_after={"edges": [-0.5, 0.0, 0.5], "sets": dict.fromkeys(("all", "random", "picked"), none)},
    )
    told = {name: figure.folded for name, figure in calm.items() if figure.folded}
    assert told == {"epsilon": "every conflict is 0", "conflict": "no row pulls against the others"}
    assert calm["epsilon"].table.rows[0] == ["1", "0", "0"], "and no zero has a sign"


def test_text_out_of_a_dataset_stays_text_and_the_drawing_stays_xml() -> None:
    figure = figures(curve([1.0]))["sources"]
    root = parsed(figure.svg)
    assert {element.tag for element in root.iter()} <= {f"{SVG}{tag}" for tag in ("svg", "text", "rect", "title")}
    assert any("<script>alert(1)</script>" in text for text in texts(figure))


def test_every_method_has_its_line_its_name_and_its_error_bars() -> None:
    figure = figures(curve([3.0, 2.0, 1.0], "random", "fisher"))["curve"]
    classes = [element.get("class") for element in parsed(figure.svg).iter()]
    assert {"line series-0", "line series-1", "line series-2"} <= set(classes)
    assert "error series-1" in classes
    assert "error series-0" not in classes
    assert {"spice", "random", "fisher"} <= set(texts(figure))
    assert "\N{PLUS-MINUS SIGN} 0.5 (standard deviation of 3 runs)" in figure.caption


def test_names_of_lines_that_end_together_do_not_cover_each_other() -> None:
    figure = figures(curve([1.0, 1.0], "random", "fisher", "dpp", "grad_norm"))["curve"]
    labels = [e for e in parsed(figure.svg).iter(f"{SVG}text") if (e.get("class") or "").startswith("label")]
    places = sorted(float(label.get("y", "nan")) for label in labels)
    assert len(places) == 5
    assert all(below - above >= 12 for above, below in pairwise(places))


@pytest.mark.parametrize(
    ("stop", "words"),
    [
        ({"requested": False, "kept": 1}, "An early stop at 0.5 of the first gain would have kept 1 pick."),
        ({"requested": False, "kept": None}, "would not have come."),
        ({"requested": True, "kept": 1}, "it came after 1 pick."),
        ({"requested": True, "kept": None}, "it did not come."),
    ],
)
def test_the_early_stop_is_told(stop: dict[str, Any], words: str) -> None:
    figure = figures(curve([2.0, 1.0]), early_stop={"ratio": 0.5, "threshold": 1.0, **stop})["gains"]
    assert figure.caption.endswith(words)
    assert ("mark" in figure.svg) == (stop["kept"] is not None)


def test_a_dataset_without_sources_has_no_such_figure() -> None:
    assert "sources" not in figures(curve([1.0]), sources=None, early_stop=None)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(1, 12))
def test_ticks_are_round_and_inside(low: float, span: float, count: int) -> None:
    found = Range(low, low + span)
    if found.high <= found.low:
        return
    ticks = found.ticks(count)
    slack = 1e-6 * max(abs(found.low), abs(found.high), span)
    assert all(found.low - slack <= tick <= found.high + slack for tick in ticks)
    assert len(ticks) <= count + 1


@given(st.lists(st.floats(-1e6, 1e6), max_size=5), st.booleans())
def test_a_range_is_never_empty(values: list[float], zero: bool) -> None:
    found = Range.around(values, zero=zero)
    assert found.low < found.high


@pytest.mark.parametrize(
    ("picked", "said"),
    [
        ((5, 15), "The picks come from the sources in the proportions of all rows."),
        ((10, 10), "The selection favours web: 50% of the picks, 25% of all."),
    ],
)
def test_no_source_is_favoured_by_shares_that_are_the_same(picked: tuple[int, int], said: str) -> None:
    counts = zip(("web", "book"), (100, 300), picked, strict=True)
    values = [{"value": name, "all": rows, "picked": some} for name, rows, some in counts]
    drawn = figures(curve([2.0, 1.0]), sources={"column": "source", "values": values, "other": None})
    assert drawn["sources"].caption == said
