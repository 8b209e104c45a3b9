"""Why a row was picked or was not: what the result and the table of scores say of it, as words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
from sqlalchemy import BigInteger, any_, cast, func, select

from app.core.contracts.row_scores import GAIN_AT_END, NEAREST, NEAREST_COSINE
from app.core.contracts.selection_request import DIAGNOSTICS, SelectionSpec
from app.core.db.selections import FILTERED, MAIN
from app.core.db.tables import RejectedRows, SelectionChunk
from app.core.storage import excerpts_name, row_scores_name
from app.http.problems import FieldError, InvalidRequest
from app.results.rows_schemas import NearestPick, PickedRow, RowFate
from app.results.rows_service import Asked, rows_of
from app.results.service import finished_job

if TYPE_CHECKING:
    import uuid

    from sqlalchemy.orm import Session

    from app.core.db.engine import Sessions
    from app.results.job_files import JobFiles

ALIKE = 0.9
"""A cosine from which on two rows teach a model about the same."""
EXCLUDED = "The request excludes the row."
LEFT = 0.01
"""A share of the first pick's gain below which a row adds nothing to speak of."""


def fate(sessions: Sessions, files: JobFiles, row: int) -> RowFate:
    """What became of a row, and why.

    Raises:
        JobNotFound: There is no such job.
        ResultNotReady: It has not succeeded.
        InvalidRequest: The dataset has no such row.
        RowsGone: The artifact store no longer has the scores.
        RowsInRepair: They are not what was published, and are being made again.
        RowsDamaged: They could not be made again.
        Unavailable: The store does not answer.
    """
    job_id = files.job_id
    with sessions() as session:
        job = finished_job(session, job_id)
        result, scheduled = job.result or {}, job.request.get("schedule") is not None
        passed = came_first(SelectionSpec.model_validate(job.request["selection"]), result["stop_reason"], row)
        rows = result["rows_total"]
        if row >= rows:
            raise InvalidRequest(FieldError(field="row", message=f"is {row}, and the rows go from 0 to {rows - 1}"))
        reason = _left_out(session, job_id, row)
        gains = [_pick(session, job_id, rank) for rank in (1, result["selected"])]
        rank = _rank(session, job_id, row)
        if reason is not None and not reason.startswith(FILTERED):
            words = [f"The row could not be used: {reason.replace('_', ' ')}."]
            return RowFate(job_id=job_id, row=row, fate="unusable", reason=reason, words=words)
        scores = _scores(files, row)
        near = scores.get(NEAREST)
        near_rank = None if near is None else _rank(session, job_id, near)
    nearest = None
    if near_rank is not None:
        asked = Asked("", 1, None, first_rank=near_rank, last_rank=near_rank)
        found = rows_of(files, excerpts_name(job_id), PickedRow, asked).items
        text = found[0] if found else None
        nearest = NearestPick(
            rank=near_rank,
            row=scores[NEAREST],
            cosine=scores[NEAREST_COSINE],
            messages=[] if text is None else text.messages,
        )
    known = {name: scores.get(name) for name in (*DIAGNOSTICS, "suspicion", "suspect", GAIN_AT_END)}
    state = "picked" if rank is not None else "filtered" if reason is not None else "passed_over"
    answer = RowFate(
        job_id=job_id,
        row=row,
        fate=state,
        rank=rank,
        reason=None if reason is None else reason.removeprefix(FILTERED),
        first_gain=gains[0],
        last_gain=gains[1],
        nearest=nearest,
        words=[],
        **known,
    )
    words = _words(answer, passed)
    if scheduled and state == "passed_over":
        words = [words[0], "The job has a schedule: the row was compared with those of its own window alone."]
    return answer.model_copy(update={"words": words})


def came_first(spec: SelectionSpec, stop: str, row: int) -> str:
    """Why other rows were picked that add no less than a row would: whether a larger budget would come to it.

    Args:
        spec: The selection.
        stop: Why it ended.
        row: The row that was passed over.
    """
    limits = spec.constraints
    if limits is not None and isinstance(limits.exclude, tuple) and row in limits.exclude:
        return EXCLUDED
    if stop == "early_stop":
        return "The selection ended before it came to the row: the next pick added too little to go on."
    closed = limits is not None and any((limits.sources, limits.exclude, limits.near_duplicates))
    if closed or stop != "budget" or spec.fisher != "exact" or spec.method not in ("spice", "fisher"):
        return "Other rows came first by the method, or by what the picks keep to."
    return "Other rows added more while there was room: a larger budget would come to it."


def _words(found: RowFate, passed: str) -> list[str]:
    if found.fate == "picked":
        return [f"The row was picked, as number {found.rank:,}."]
    if found.fate == "filtered":
        words = [f"A filter kept the row from being picked: {(found.reason or '').replace('_', ' ')}."]
        if found.reason == "suspicion" and found.suspicion is not None:
            words.append(f"It looks more wrong than {found.suspicion:.0%} of the other rows do.")
        return words
    if found.gain_at_end is None:
        return ["The row was passed over. So many rows and picks are not compared one by one, so no more is known."]
    adds = f"To the whole selection the row would add {found.gain_at_end:.3g} nats"
    words = [f"{adds}; the last pick added {found.last_gain:.3g}, the first {found.first_gain:.3g}."]
    if passed == EXCLUDED:
        words.append(passed)
    elif found.gain_at_end <= LEFT * (found.first_gain or 0):
        words.append("That is next to nothing: what it teaches is in the selection already.")
    elif found.last_gain is not None and found.gain_at_end > found.last_gain:
        words.append("That is more than the last pick: a penalty, a constraint or a price decided against it.")
    else:
        words.append(passed)
    if found.nearest is not None:
        like = "much like" if found.nearest.cosine >= ALIKE else "nearest to"
        words.append(f"It is {like} pick {found.nearest.rank:,}: their cosine is {found.nearest.cosine:.3f}.")
    return words


def _rank(session: Session, job_id: uuid.UUID, row: int) -> int | None:
    """The rank of a row, from 1; None if it was not picked."""
    place = func.array_position(SelectionChunk.row_indices, cast(row, BigInteger))
    found: int | None = session.scalar(
        select(SelectionChunk.first_rank + place).where(
            SelectionChunk.job_id == job_id, SelectionChunk.label == MAIN, place.is_not(None)
        )
    )
    return found


def _pick(session: Session, job_id: uuid.UUID, rank: int) -> float | None:
    """The gain of the pick of a rank, in nats."""
    found: float | None = session.scalar(
        select(SelectionChunk.marginal_gains[rank - SelectionChunk.first_rank])
        .where(SelectionChunk.job_id == job_id, SelectionChunk.label == MAIN, SelectionChunk.first_rank < rank)
        .order_by(SelectionChunk.first_rank.desc())
        .limit(1)
    )
    return found


def _left_out(session: Session, job_id: uuid.UUID, row: int) -> str | None:
    """Why a row could not be picked, as it was stored; None if it could."""
    found: str | None = session.scalar(
        select(RejectedRows.reason).where(RejectedRows.job_id == job_id, any_(RejectedRows.row_indices) == row).limit(1)
    )
    return found


def _scores(files: JobFiles, row: int) -> dict[str, Any]:
    """The row's line of the table of scores, without what is not known; empty if it has none."""
    with files.opened(row_scores_name(files.job_id), "scores") as (stream, _):
        table = pq.ParquetFile(stream)
        for group in range(table.num_row_groups):
            bounds = table.metadata.row_group(group).column(0).statistics
            if bounds.min <= row <= bounds.max:
                found = table.read_row_group(group)
                at = found["row"].index(row).as_py()
                lines = found.slice(at, 1).to_pylist() if at >= 0 else []
                return {key: value for line in lines for key, value in line.items() if value is not None}
    return {}
