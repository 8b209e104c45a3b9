"""What a notebook and an interactive session show."""

from __future__ import annotations

import re
import sys
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from app.jobs.schemas import EXAMPLE_JOB
from spice_client import Curve, Job, JobResult, Subset
from spice_client.cli import compare
from spice_client.comparison import Compared, Comparison
from spice_client.models import Page
from spice_client.progress import view_of
from tests.integration.client.test_cli_client import RESULT

PROGRESS = {"done": 500, "total": 1000, "unit": "samples", "rate": 212.4, "eta_s": 2.4}
PICKS = 100_000


def job(**more: Any) -> Job:
    return Job.model_validate({**EXAMPLE_JOB, "progress": None, "stage": None, **more})


def drawn(html: str) -> ET.Element:
    """HTML that is well-formed, as a notebook wants it."""
    return ET.fromstring(html)  # noqa: S314 - our own


def test_a_job_is_a_line_and_a_table_with_what_is_proven() -> None:
    done = job(state="succeeded", result=RESULT, name="<b>nightly")
    assert repr(done) == "<job 7d5fa1b4, succeeded, '<b>nightly', 100 of 1,000 rows, 123.5 nats>".replace(
        "7d5fa1b4", str(done.id)[:8]
    )
    text = "".join(drawn(done._repr_html_()).itertext())
    assert "no subset of this size has more than 1.250 times the information" in text
    assert "<b>nightly" in text, "a name is text"


def test_a_long_answer_is_counted_and_not_listed() -> None:
    page = Page[int](items=list(range(PICKS)))
    assert repr(page) == "Page[int](items=<100,000 items>)"
    assert page.document()["items"] == list(range(PICKS)), "it is all there"


def test_a_subset_is_its_curve_and_its_certificate() -> None:
    gains = [1.0 / (1 + rank) for rank in range(PICKS)]
    log_det = [sum(gains[:1])]
    for gain in gains[1:]:
        log_det.append(log_det[-1] + gain)
    subset = Subset("7d5f", list(range(PICKS)), gains, [0.0] * PICKS, [0.0] * PICKS, log_det, 0.8)
    html = subset._repr_html_()
    assert len(html) < 20_000, "a notebook's file is not to hold every pick"
    tree = drawn(html)
    (line,) = tree.iter("polyline")
    ends = re.findall(r"[\d.]+,[\d.]+", str(line.get("points")))
    assert (ends[0], ends[-1]) == ("46.0,158.0", "412.0,8.0"), "from nothing to all, in the corners of the drawing"
    assert "certificate 0.8000: no subset of this size" in "".join(tree.itertext())


def test_a_curve_has_its_baselines() -> None:
    line = {"selected": 2, "rank": [1, 2], "log_det": [1.0, 1.5], "marginal_gains": [1.0, 0.5]}
    curve = Curve.model_validate({**line, "job_id": EXAMPLE_JOB["id"], "baselines": {"random": line}})
    tree = drawn(curve._repr_html_())
    assert [title.text for title in tree.iter("title")] == ["picks", "random"]
    assert drawn(Subset("a", [], [], [], [], [])._repr_html_()).find("svg") is None


def test_a_notebook_has_a_bar_that_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, html: str) -> None:
            shown.append(html)

    def display(html: str, *, display_id: bool) -> Handle:
        assert display_id
        shown.append(html)
        return Handle()

    stands_in: Any = ModuleType("IPython.display")
    stands_in.HTML, stands_in.display = str, display
    monkeypatch.setitem(sys.modules, "IPython.display", stands_in)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    with view_of(None) as view:
        view.show(job(state="running", stage="gradients", progress=PROGRESS))
        view.show(job(state="succeeded", result=RESULT))
    assert '<progress max="1000" value="500"' in shown[0]
    assert "500/1,000 samples, 212 a second, 2 s left" in shown[0]
    assert "progress" not in shown[1]
    assert all(drawn(html) is not None for html in shown)


def test_a_job_that_waits_between_two_turns_is_not_told_as_queued(capsys: pytest.CaptureFixture[str]) -> None:
    with view_of(progress=True) as view:
        view.show(job(state="queued", stage=None))
        view.show(job(state="running", stage="gradients", progress=None))
        view.show(job(state="queued", stage="gradients", progress=None))
        view.show(job(state="running", stage="selecting", progress=None))
        view.show(job(state="succeeded", stage=None, result=RESULT))
    assert capsys.readouterr().err.split() == ["queued", "gradients", "selecting", "succeeded"]


@pytest.mark.parametrize("columns", ["60", "250"])
def test_rows_of_different_data_are_not_counted_as_shared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    done = Compared(job(state="succeeded"), JobResult.model_validate(RESULT), [1.0, 0.017])
    for same_rows in (True, False):
        compare._show(Comparison([done, done], same_rows=same_rows, same_scale=True))
        shown = capsys.readouterr()
        assert ("1.7%" in shown.out) == ("SAME" in shown.out) == same_rows
        assert ("none are counted" in shown.err) != same_rows
