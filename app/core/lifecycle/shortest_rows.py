"""How many tokens the shortest usable row of a registered dataset has, as whoever read it with a model found.

The service has no tokenizer: it knows this of what a worker has read before, and holds token budgets against it.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from app.core.db.tables import Dataset

if TYPE_CHECKING:
    import uuid

    from sqlalchemy.orm import Session

    from app.core.contracts.job_request import JobRequest

MOST_KEPT = 100
"""Ways of reading a dataset whose shortest row is kept."""


def reading_of(request: JobRequest) -> str:
    """A digest of what decides how many tokens a row has, as far as a request names it."""
    model, dataset = request.model, request.dataset
    parts = [
        model.uri,
        model.max_length,
        model.chat_template,
        None if dataset.columns is None else dataset.columns.model_dump(exclude_none=True),
        dataset.train_on,
        dataset.preference,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def note(session: Session, dataset_id: uuid.UUID, request: JobRequest, tokens: int) -> None:
    """Keep the tokens of a dataset's shortest usable row, and commit.

    Args:
        session: For this transaction alone.
        dataset_id: The registered dataset; nothing is kept of one that was deleted.
        request: How it was read.
        tokens: Of the row, as its model reads it.
    """
    reading = reading_of(request)
    dataset = session.get(Dataset, dataset_id)
    if dataset is None or (dataset.shortest_rows or {}).get(reading) == tokens:
        return
    session.refresh(dataset, with_for_update={"key_share": True})
    others = {name: known for name, known in (dataset.shortest_rows or {}).items() if name != reading}
    dataset.shortest_rows = {**dict(list(others.items())[: MOST_KEPT - 1]), reading: tokens}
    session.commit()


def known(dataset: Dataset, request: JobRequest) -> int | None:
    """The tokens of a dataset's shortest usable row, if it was read in this way before."""
    found: int | None = (dataset.shortest_rows or {}).get(reading_of(request))
    return found
