"""Constraints of a job that selects window by window: what they bind, over one window and over all."""

from __future__ import annotations

from math import ceil, floor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.integration.conftest import ROWS, real_rows
from tests.integration.jobs.test_purpose import SOURCES, sourced_rows
from tests.integration.jobs.test_schedule import KEEP, NEVER, WINDOWS, by_hand, done, picks_of, scheduled
from tests.unit.selection.naive_greedy import naive_picks
from workers.selection.seeds import random_permutation

if TYPE_CHECKING:
    from tests.integration.conftest import Service


@pytest.fixture(scope="module")
def service(shared_service: Service) -> Service:
    return shared_service


def constrained(service: Service, constraints: dict[str, Any], **schedule: Any) -> dict[str, Any]:
    """A schedule over rows with a source each, two of which have the text of another."""
    body = scheduled(service, {"normalize": "none", "constraints": constraints}, **schedule)
    body["dataset"] = {"uri": service.write_dataset(sourced_rows(), "sourced.jsonl"), "source_column": "origin"}
    return body


def windows_by_hand() -> list[list[int]]:
    order = random_permutation(ROWS, seed=0, role="schedule/rows", layer="").tolist()
    return [order[start : start + WINDOWS] for start in range(0, ROWS, WINDOWS)]


def of_windows(picks: list[int]) -> list[list[int]]:
    """Picks by window, in their order."""
    return [[row for row in picks if row in window] for window in windows_by_hand()]


def test_rows_that_are_barred_are_no_candidates_and_the_others_are_the_greedy(service: Service) -> None:
    """By the naive greedy over what is left of each window; the rows dropped are named as in any other job."""
    windows = windows_by_hand()
    excluded = [windows[0][0], windows[1][3], windows[1][4]]
    evaluation = service.write_dataset([{"text": real_rows()[windows[2][1]]["response"]}], "evaluation.jsonl")
    constraints = {
        "exclude": excluded,
        "decontaminate": {"dataset": {"uri": evaluation}, "ngram": 8},
    }
    body = scheduled(service, {"normalize": "none", "constraints": constraints}, train_every=NEVER)
    job = done(service, body)
    dropped = {one["reason"]: one["rows"] for one in service.http.get(job["links"]["rejected"]).json()["filtered"]}
    assert windows[2][1] in dropped["decontaminate"]
    barred = {*excluded, *dropped["decontaminate"]}
    sketches, _ = by_hand(service)
    expected = []
    for window, keep in zip(windows, [KEEP] * 4 + [1], strict=True):
        rows = np.array([row for row in window if row not in barred])
        alpha = 1 / np.median((sketches[rows] ** 2).sum(axis=1))
        expected += rows[naive_picks(sketches[rows], keep, alpha, penalty=0.1)].tolist()
    assert picks_of(service, job) == expected
    met = job["result"]["constraints"]
    assert (met["rows"], met["log_det_lost"], met["kept_out"]) == ({"exclude": 3}, None, {})
    assert 0 < job["result"]["certificate"]["value"] <= 1
    assert "is not measured" in service.http.get(f"/jobs/{job['id']}/report").text


def test_what_must_be_picked_comes_first_in_its_window_even_if_that_keeps_fewer(service: Service) -> None:
    windows = windows_by_hand()
    include = [windows[3][5], *windows[1][7:12], windows[3][2]]
    body = scheduled(service, {"constraints": {"include": include}}, train_every=NEVER)
    job = done(service, body)
    picks = of_windows(picks_of(service, job))
    assert [len(window) for window in picks] == [3, 5, 3, 3, 1]
    assert picks[1] == windows[1][7:12]
    assert picks[3][:2] == [windows[3][5], windows[3][2]], "in the order of the request"
    assert picks_of(service, job) == [row for window in picks for row in window], "window after window"
    assert job["result"]["constraints"]["rows"] == {"include": 7}


def test_near_duplicates_by_text_are_of_all_windows_and_by_cosine_of_each(service: Service) -> None:
    """Rows 50 and 51 have the texts of 0 and 1; no two picks of a window have a cosine of 0.3 or more."""
    near = {"near_duplicates": {"text": True, "cosine": 0.3}}
    job = done(service, constrained(service, near, keep=WINDOWS, train_every=NEVER))
    assert job["result"]["filtered"] == {"near_duplicates_text": 2}
    picks = picks_of(service, job)
    assert not {50, 51} & set(picks)
    sketches, _ = by_hand(service)
    units = sketches / np.linalg.norm(sketches, axis=1, keepdims=True)
    for window, picked in zip(windows_by_hand(), of_windows(picks), strict=True):
        cosines = units[picked] @ units[picked].T - 2 * np.eye(len(picked))
        assert cosines.max() < 0.3
        left = [row for row in window if row not in picked and row not in (50, 51)]
        if left:
            assert (units[left] @ units[picked].T).max(axis=1).min() >= 0.3 - 1e-5, "and no more were barred"


LIMITS = {"code": {"min": 0.4, "max": 0.5}, "chat": {"min": 0.3}, "*": {"max": 0.4}}


@pytest.mark.parametrize("selection", [{}, {"method": "random"}, {"early_stop_ratio": 0.4}])
def test_shares_hold_of_all_picks_though_windows_are_small(service: Service, selection: dict[str, Any]) -> None:
    """By the words of the request, of as many rows as came out; with training in between."""
    body = constrained(service, {"sources": LIMITS, "include": [5], "exclude": [2, 3]})
    body["selection"] |= selection
    job = done(service, body)
    picks = picks_of(service, job)
    held = {source: sum(sourced_rows()[row]["origin"] == source for row in picks) for source in SOURCES}
    for source in SOURCES:
        share = LIMITS.get(source, LIMITS["*"])
        assert ceil(round(share.get("min", 0) * len(picks), 6)) <= held[source]
        assert held[source] <= floor(round(share.get("max", 1) * len(picks), 6))
    assert 5 in picks
    told = job["result"]["constraints"]["sources"]
    assert {name: one["picked"] for name, one in told.items()} == held
    if "early_stop_ratio" not in selection:
        assert (len(picks), told["code"]["least"], told["code"]["most"]) == (13, 6, 6)


def test_constraints_are_part_of_what_a_schedule_is_found_again_by(service: Service) -> None:
    """Other shares train another model; limits that bar no row and name none are none."""
    first = done(service, constrained(service, {"sources": LIMITS}, seed=21))
    same, other, free = (
        done(service, constrained(service, constraints, seed=21))
        for constraints in ({"sources": LIMITS}, {"sources": {"code": {"max": 0.2}}}, {"exclude": []})
    )
    assert same["result"]["gradients"]["computed"] == 0
    assert picks_of(service, same) == picks_of(service, first)
    assert other["result"]["gradients"]["computed"] == free["result"]["gradients"]["computed"] == ROWS
    assert len({first["result"]["sketches"], other["result"]["sketches"], free["result"]["sketches"]}) == 3
    estimate = service.estimate(constrained(service, {"sources": LIMITS}, seed=21)).json()
    assert (estimate["gradient_rows"], estimate["selected"]) == (0, 13)


def test_shares_that_the_windows_can_not_come_to_fail_the_job_with_the_numbers(service: Service) -> None:
    """All rows of a source are in one window, which keeps three; and what no order of the rows could meet."""
    [first, *_] = windows_by_hand()
    rows = [{**row, "origin": "rare" if number in first else "other"} for number, row in enumerate(real_rows())]

    def failed(sources: dict[str, Any], **selection: Any) -> str:
        body = constrained(service, {"sources": sources}, train_every=NEVER)
        body["dataset"]["uri"] = service.write_dataset(rows, "rare.jsonl")
        body["selection"] |= selection
        error = service.run(body)["error"]
        assert error["type"] == "constraints-impossible"
        return str(error["detail"])

    half = {"rare": {"min": 0.5}}
    before = failed(half)
    assert before.startswith(
        "selection.constraints.sources: source 'rare': the picks need 7 to 13 of its rows, and the "
    )
    assert "5 windows can give 3: make the windows larger (schedule.windows)" in before, "no gradient is computed"
    assert "and the 5 windows gave 3" in failed(half, early_stop_ratio=0.01), "fewer picks might have had the share"
    assert "budget is 13" in failed({"rare": {"max": 0.1}, "*": {"max": 0.1}}), "no order of the rows could meet that"
