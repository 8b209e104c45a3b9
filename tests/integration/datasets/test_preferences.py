"""Pairs, labels, plain text and last turns through the running service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.conftest import real_rows

if TYPE_CHECKING:
    from tests.integration.conftest import Service


@pytest.fixture(scope="module")
def service(shared_service: Service) -> Service:
    """One for all tests here, each of which selects from rows of another kind."""
    return shared_service


PAIRS = [{"prompt": r["prompt"], "chosen": r["response"], "rejected": f"No: {i}."} for i, r in enumerate(real_rows())]
LABELLED = [
    {"prompt": r["prompt"], "completion": r["response"], "label": i % 2 == 0} for i, r in enumerate(real_rows())
]
TEXTS = [{"text": row["response"]} for row in real_rows()]


@pytest.mark.parametrize(
    ("rows", "dataset", "usable"),
    [
        (PAIRS, {}, 60),
        (PAIRS, {"preference": "rejected"}, 60),
        (PAIRS, {"preference": "dpo"}, 60),
        (LABELLED, {}, 30),
        (LABELLED, {"preference": "all"}, 60),
        (TEXTS, {}, 60),
        (TEXTS, {"columns": {"text": "text"}, "train_on": "last"}, 60),
    ],
)
def test_a_job_selects_from_rows_of_each_kind(
    service: Service, rows: list[dict[str, Any]], dataset: dict[str, Any], usable: int
) -> None:
    body = service.request(service.write_dataset(rows))
    found = service.run({**body, "dataset": {**body["dataset"], **dataset}})
    assert found["state"] == "succeeded", found["error"]
    assert found["result"]["rows_usable"] == usable
    assert found["result"]["ignored_columns"] == {}
    assert found["result"]["log_det"] > 0


def test_what_is_asked_for_beside_the_dataset_is_asked_for_of_it(service: Service) -> None:
    body = {**service.request(service.write_dataset(PAIRS)), "preference": "dpo", "train_on": "last"}
    found = service.job(service.submit(body))
    assert (found["dataset"]["preference"], found["dataset"]["train_on"]) == ("dpo", "last")


@pytest.mark.parametrize("preference", ["chosen", "rejected"])
def test_the_rows_of_a_result_show_the_side_that_was_learned(service: Service, preference: str) -> None:
    body = service.request(service.write_dataset(PAIRS))
    job = service.run({**body, "preference": preference})
    shown = service.http.get(f"/jobs/{job['id']}/rows").json()["items"]
    assert {row["index"]: row["messages"][-1]["content"] for row in shown} == {
        row["index"]: PAIRS[row["index"]][preference] for row in shown
    }


def test_names_that_no_database_holds_are_told_in_others(service: Service) -> None:
    """A NUL character in the name of a column, or of a turn's field, and half of a surrogate pair."""
    turns = [{"role": "user", "content": "Who?", "n\0te": 1}, {"role": "assistant", "content": "I."}]
    rows = [{"messages": turns, "so\0rce": "a", "b\ud800": i} for i in range(5)]
    found = service.run(service.request(service.write_dataset(rows)))
    assert found["state"] == "succeeded", found["error"]
    assert found["result"]["ignored_columns"] == {"n\ufffdte": 5, "so\ufffdrce": 5, "b?": 5}
