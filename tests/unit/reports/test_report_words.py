"""A result in sentences."""

from __future__ import annotations

from app.core.contracts.job_result import Certificate, JobResult, Rejected, SuspectsCounted
from app.reports.words import summary

CERTIFICATE = Certificate(
    value=0.8,
    optimum_upper_bound=154.3,
    additive_bound=154.3,
    curvature=None,
    curvature_factor=None,
    epsilon_bound_violations=0,
)


def words(selected: int, usable: int, unusable: int, filtered: int) -> str:
    """What is said of a result, of which no sentence reads more than this."""
    result = JobResult.model_construct(
        selected=selected,
        rows_total=usable + unusable,
        rows_usable=usable,
        rejected=[Rejected(reason="empty_response", count=unusable, rows=[0])],
        ignored_columns={"id": usable},
        filtered={"suspicion": filtered},
        suspects=SuspectsCounted(rows=filtered, picked=0, listed=filtered),
        tokens_selected=9,
        log_det=123.4567,
        stop_reason="budget",
        certificate=CERTIFICATE,
        baselines={},
    )
    return "\n".join(summary(result))


def test_one_row_is_one_row() -> None:
    assert words(1, 1, 1, 1).startswith(
        "1 of 1 usable row is picked. It holds 123.5 nats of information. The budget is used up. 1 row could not be "
        "used: 1 empty response. Nothing reads these fields of the rows: id (1 row). Training on the picks reads 9 "
        "tokens once.\n1 usable row was kept from being picked by the filters. 1 usable row looks wrong, 0 of them "
        "picked: see the list of suspects.\nNo row by itself holds more than 154.3 nats"
    )


def test_several_are_several() -> None:
    assert words(100, 1000, 200, 2).startswith(
        "100 of 1,000 usable rows are picked. Together they hold 123.5 nats of information. The budget is used up. 200 "
        "rows could not be used: 200 empty response. Nothing reads these fields of the rows: id (1,000 rows). Training "
        "on the picks reads 9 tokens once.\n2 usable rows were kept from being picked by the filters. 2 usable rows "
        "look wrong, 0 of them picked: see the list of suspects.\nNo 100 of these rows hold more than 154.3 nats"
    )
