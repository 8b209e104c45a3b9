"""What a finished job tells beyond its picks: statistics for figures, curves with error bars, rows with search."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from app.results import rows_service as picked_rows
from tests.integration.conftest import ROWS, real_rows

if TYPE_CHECKING:
    from tests.integration.conftest import Service

PICKS = ROWS // 5


def rows_with_sources() -> list[dict[str, Any]]:
    rows = [{**row, "source": f"module {number % 3}"} for number, row in enumerate(real_rows())]
    rows[0]["source"] = None
    return rows


@pytest.fixture(scope="module")
def service(shared_service: Service) -> Service:
    """One for all tests here, most of which look at one job."""
    return shared_service


@pytest.fixture(scope="module")
def job(service: Service) -> dict[str, Any]:
    """A finished job, which is not to be changed."""
    return finished(service)


def finished(service: Service) -> dict[str, Any]:
    uri = service.write_dataset(rows_with_sources(), "sources.jsonl")
    found = service.run(service.request(uri, baselines=["random", "fisher"], filters={}))
    assert found["state"] == "succeeded", found["error"]
    return found


def get(service: Service, job: dict[str, Any], what: str, **query: Any) -> dict[str, Any]:
    response = service.http.get(f"/jobs/{job['id']}/{what}", params=query)
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_statistics_count_every_row_once(service: Service, job: dict[str, Any]) -> None:
    found = get(service, job, "statistics")
    sets = found["conflict_before_after"]["sets"]
    assert {name: one["rows"] for name, one in sets.items()} == {"all": ROWS, "random": PICKS, "picked": PICKS}
    assert all(sum(one["counts"]) == one["rows"] for one in sets.values())
    edges = found["conflict_before_after"]["edges"]
    for one in sets.values():
        below = sum(count for count, left in zip(one["counts"], edges, strict=False) if left < 0)
        assert below == pytest.approx(one["conflicting_share"] * one["rows"], abs=1)
    assert sum(found["lengths"]["all"]["counts"]) == ROWS
    assert sum(found["lengths"]["picked"]["counts"]) == PICKS
    assert found["lengths"]["all"]["mean"] == pytest.approx(job["result"]["tokens"] / ROWS)
    sources = found["sources"]
    assert sources["column"] == "source"
    assert sources["other"]["all"] == 1
    assert sum(one["all"] for one in sources["values"]) == ROWS - 1
    assert sum(one["picked"] for one in sources["values"]) + sources["other"]["picked"] == PICKS
    subset = get(service, job, "subset")
    assert found["epsilon_conflict"]["conflict"] == pytest.approx(subset["conflicts"], rel=1e-5)
    assert found["epsilon_conflict"]["epsilon"] == pytest.approx(subset["epsilons"], rel=1e-5)


def test_the_early_stop_that_is_shown_is_the_one_that_would_come(service: Service, job: dict[str, Any]) -> None:
    would = get(service, job, "statistics")["early_stop"]
    gains = get(service, job, "subset")["marginal_gains"]
    assert (would["ratio"], would["requested"]) == (0.5, False)
    first_below = next((at for at, gain in enumerate(gains) if gain <= 0.5 * gains[0]), None)
    assert would["kept"] == first_below
    stopped = service.run(
        service.request(
            service.write_dataset(rows_with_sources(), "sources.jsonl"), early_stop_ratio=0.9, budget={"fraction": 1.0}
        )
    )
    assert get(service, stopped, "statistics")["early_stop"] == {
        "ratio": 0.9,
        "requested": True,
        "threshold": pytest.approx(0.9 * gains[0]),
        "kept": stopped["result"]["selected"],
    }


def test_a_baseline_that_draws_has_error_bars(service: Service, job: dict[str, Any]) -> None:
    curve = get(service, job, "curve")
    random, fisher = curve["baselines"]["random"], curve["baselines"]["fisher"]
    assert (random["runs"], fisher["runs"], curve["runs"]) == (3, 1, 1)
    assert len(random["log_det_std"]) == len(random["log_det"]) == PICKS
    assert any(random["log_det_std"])
    assert fisher["log_det_std"] is curve["log_det_std"] is None
    told = job["result"]["baselines"]["random"]
    assert (told["runs"], told["log_det"]) == (3, pytest.approx(random["log_det"][-1], rel=1e-5))
    assert told["log_det_std"] == pytest.approx(random["log_det_std"][-1], rel=1e-5)
    thin = get(service, job, "curve", points=3)["baselines"]["random"]
    assert thin["rank"] == [PICKS // 3, 2 * PICKS // 3, PICKS]
    once = service.run(service.request(baselines=["random"], baseline_repeats=1))
    assert get(service, once, "curve")["baselines"]["random"]["log_det_std"] is None


def test_picked_rows_come_best_first_page_by_page(service: Service, job: dict[str, Any]) -> None:
    subset, rows = get(service, job, "subset"), real_rows()
    first = get(service, job, "rows", limit=5)
    rest = get(service, job, "rows", limit=200, cursor=first["next_cursor"])
    assert (len(first["items"]), rest["next_cursor"]) == (5, None)
    items = first["items"] + rest["items"]
    assert [item["rank"] for item in items] == list(range(1, PICKS + 1))
    assert [item["index"] for item in items] == subset["indices"]
    assert [item["marginal_gain"] for item in items] == subset["marginal_gains"]
    for item in items:
        assert [turn["content"] for turn in item["messages"]] == [
            rows[item["index"]]["prompt"],
            rows[item["index"]]["response"],
        ]


def test_rows_are_searched_without_regard_to_case_and_in_bounded_steps(
    service: Service, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    indices = get(service, job, "subset")["indices"]
    word = real_rows()[indices[-1]]["prompt"].split()[-2]
    expected = [i for i in indices if word.lower() in " ".join(real_rows()[i].values()).lower()]
    found = get(service, job, "rows", query=word.upper(), limit=200)
    assert [item["index"] for item in found["items"]] == expected
    nothing = get(service, job, "rows", query="no row has this")
    assert (nothing["items"], nothing["searched"], nothing["next_cursor"]) == ([], PICKS, None)
    monkeypatch.setattr(picked_rows, "SCANNED_BYTES", 1)
    page, steps, seen = get(service, job, "rows", query=word), 1, []
    while True:
        seen += [item["index"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        page, steps = get(service, job, "rows", query=word, cursor=page["next_cursor"]), steps + 1
    assert (seen, steps) == (expected, PICKS)


def test_rows_are_narrowed_to_what_a_mark_of_a_figure_stands_for(
    service: Service, job: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    items = get(service, job, "rows", limit=200)["items"]
    given = rows_with_sources()
    assert [item["source"] for item in items] == [given[item["index"]]["source"] for item in items]
    assert get(service, job, "suspects", source="module 2")["items"][0]["source"] == "module 2"
    marks = {one["name"]: one["marks"] for one in get(service, job, "figures")["figures"]}
    one_source = next(mark for mark in marks["sources"] if mark["rows"])
    expected = [item for item in items if item["source"] == one_source["rows"]["source"]]
    assert get(service, job, "rows", limit=200, **one_source["rows"])["items"] == expected
    assert one_source["text"].endswith(
        f"{len(expected)} picked of {sum(one['source'] == expected[0]['source'] for one in given)}"
    )
    monkeypatch.setattr(picked_rows, "READ_BYTES", 256)  # so that a rank is looked for in more than one place
    for number in (0, PICKS // 2, PICKS - 1):
        for figure in ("epsilon", "gains"):
            asked = marks[figure][number]["rows"]
            assert get(service, job, "rows", **asked)["items"] == [items[number]], asked
            assert get(service, job, "rows", **asked)["next_cursor"] is None
    bound = items[3]["marginal_gain"]
    wanted = [item for item in items if item["marginal_gain"] >= bound]
    assert get(service, job, "rows", limit=200, min_gain=bound)["items"] == wanted
    assert get(service, job, "rows", limit=200, min_conflict=2)["items"] == []


def test_a_row_is_told_why_it_was_not_picked(service: Service, job: dict[str, Any]) -> None:
    subset = get(service, job, "subset")
    picked = {row: rank for rank, row in enumerate(subset["indices"], start=1)}
    scores = pq.read_table(io.BytesIO(service.http.get(job["links"]["scores"]).content)).to_pydict()
    optimum, left = 0.0, []
    for row in range(ROWS):
        found = get(service, job, f"rows/{row}/why")
        assert (found["fate"], found["rank"]) == (("picked", picked[row]) if row in picked else ("passed_over", None))
        assert found["gain_at_end"] == scores["gain_at_end"][row]
        assert found["last_gain"] == subset["marginal_gains"][-1]
        assert found["words"]
        if row in picked:
            continue
        left.append(found["gain_at_end"])
        near = found["nearest"]
        assert picked[near["row"]] == near["rank"]
        assert near["messages"][0]["content"] == real_rows()[near["row"]]["prompt"]
        assert (near["row"], near["cosine"]) == (scores["nearest"][row], scores["nearest_cosine"][row])
    optimum = job["result"]["log_det"] + sum(sorted(left)[-PICKS:])
    assert optimum == pytest.approx(job["result"]["certificate"]["optimum_upper_bound"], rel=1e-4), "by definition"
    beyond = service.http.get(f"/jobs/{job['id']}/rows/{ROWS}/why")
    assert (beyond.status_code, beyond.json()["errors"][0]["field"]) == (422, "row")
    assert "0 to 59" in beyond.json()["detail"]


def test_a_filtered_and_an_unusable_row_are_told_so(service: Service) -> None:
    rows = [*real_rows(), {"prompt": "And nothing?", "response": ""}]
    body = service.request(service.write_dataset(rows, "one-empty.jsonl"), filters={"loss": {"max_quantile": 0.5}})
    found = service.run(body)
    assert found["state"] == "succeeded", found["error"]
    empty = get(service, found, f"rows/{ROWS}/why")
    assert (empty["fate"], empty["reason"]) == ("unusable", found["result"]["rejected"][0]["reason"])
    (dropped,) = get(service, found, "rejected")["filtered"]
    told = get(service, found, f"rows/{dropped['rows'][0]}/why")
    assert (told["fate"], told["reason"]) == ("filtered", "loss_max_quantile")
    assert told["loss"] > 0


@pytest.mark.parametrize("cursor", ["1", "0", "-5", "x", "999999999", "٣"])
def test_a_cursor_that_was_not_given_is_refused(service: Service, job: dict[str, Any], cursor: str) -> None:
    response = service.http.get(f"/jobs/{job['id']}/rows", params={"cursor": cursor})
    assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "cursor")


def test_rows_that_retention_took_are_gone_and_said_so(service: Service) -> None:
    job = finished(service)
    for file in (service.settings.data_dir / "artifacts" / "jobs" / job["id"]).iterdir():
        file.unlink()
    response = service.http.get(f"/jobs/{job['id']}/rows")
    assert (response.status_code, response.json()["type"]) == (404, "rows-gone")


def test_a_source_column_that_is_not_there_fails_before_any_gradient(service: Service) -> None:
    body = service.request()
    body["dataset"]["source_column"] = "origin"
    found = service.run(body)
    assert (found["state"], found["error"]["type"]) == ("failed", "dataset-unknown-column")
    assert "origin" in found["error"]["detail"]


def test_jobs_without_a_result_have_no_statistics_or_rows(service: Service) -> None:
    job_id = service.submit(service.request())
    for what in ("statistics", "rows"):
        assert service.http.get(f"/jobs/{job_id}/{what}").json()["type"] == "result-not-ready"


def test_no_figure_needs_a_source_column_and_no_set_is_smaller_than_itself(service: Service) -> None:
    found = service.run(service.request(method="random", budget={"fraction": 1.0}))
    statistics = get(service, found, "statistics")
    assert statistics["sources"] is None
    assert statistics["early_stop"] is None
    sets = statistics["conflict_before_after"]["sets"]
    assert sets["all"]["mean_conflict"] == pytest.approx(sets["picked"]["mean_conflict"])
    assert np.all(np.diff(statistics["lengths"]["edges"]) > 0)
