"""What is kept of the shortest row of a registered dataset."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from app.core.contracts.job_request import JobRequest
from app.core.db.tables import Dataset
from app.core.lifecycle import shortest_rows

if TYPE_CHECKING:
    from app.core.db.engine import Sessions


def asked(dataset: uuid.UUID, max_length: int) -> JobRequest:
    return JobRequest.model_validate(
        {
            "dataset": {"id": str(dataset)},
            "model": {"uri": "file:///models/tiny", "max_length": max_length},
            "selection": {"budget": {"tokens": 100}},
        }
    )


def test_it_is_kept_by_how_the_rows_were_read_and_no_more_often_than_a_hundred_times(sessions: Sessions) -> None:
    dataset = Dataset(id=uuid.uuid4(), uri="file:///x.jsonl")
    with sessions() as session:
        session.add(dataset)
        session.commit()
    for length in range(2, 2 + shortest_rows.MOST_KEPT + 20):
        with sessions() as session:
            shortest_rows.note(session, dataset.id, asked(dataset.id, length), length)
    with sessions() as session:
        found = session.get_one(Dataset, dataset.id)
        before = found.updated_at
        assert len(found.shortest_rows or {}) == shortest_rows.MOST_KEPT
        assert shortest_rows.known(found, asked(dataset.id, 121)) == 121, "the newest is there"
        shortest_rows.note(session, dataset.id, asked(dataset.id, 121), 7)
    with sessions() as session:
        found = session.get_one(Dataset, dataset.id)
        assert shortest_rows.known(found, asked(dataset.id, 121)) == 7, "who reads it anew is right"
        assert shortest_rows.known(found, asked(dataset.id, 5000)) is None
        assert found.updated_at == before, "clients see nothing of it"
        shortest_rows.note(session, uuid.uuid4(), asked(dataset.id, 121), 7)
