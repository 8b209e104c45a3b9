"""What the picks of a schedule keep to, all windows together, as the job hands it to the worker that takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from app.core.contracts.schedule import WindowLimits
from app.core.lifecycle import parking
from app.core.storage import candidates_name
from workers.gradients.checked_tensors import pack, unpack
from workers.runtime.failures import ProblemError
from workers.selection import Constraints
from workers.stages.limits import barred, limits_of

if TYPE_CHECKING:
    import uuid

    from app.core.contracts.selection_request import SelectionSpec
    from app.core.storage import ArtifactStore
    from workers.data.corpus import Corpus
    from workers.stages.limits import Membership


def window_limits_of(spec: SelectionSpec, membership: Membership, corpus: Corpus) -> WindowLimits:
    """The limits that a request puts to the picks of its schedule.

    Rows that are excluded, share text with an evaluation set or have the text of another are no candidates in any
    window, so that no window needs to know the texts that earlier ones have picked.

    Args:
        spec: The request's.
        membership: What its constraints are about.
        corpus: The samples.

    Raises:
        JobError: A source is named that no row has.
    """
    limits = limits_of(spec.constraints, membership, corpus.rows, corpus.lengths, None, None, None)
    constraints, shares = limits.constraints or Constraints(), limits.shares
    plain = WindowLimits(
        include=tuple(constraints.include.tolist()),
        barred=tuple(np.flatnonzero(barred(corpus.rows, membership)).tolist()),
        near_cosine=constraints.near_cosine,
    )
    if shares is None:
        return plain
    told = {name: tuple(getattr(shares, name).tolist()) for name in ("of_row", "least", "most")}
    return plain.model_copy(update={"sources": shares.names, **told})


def write_window_limits(artifacts: ArtifactStore, job_id: uuid.UUID, limits: WindowLimits) -> None:
    """Keep them for the worker that takes the windows."""
    artifacts.write(candidates_name(job_id), pack({}, {"limits": limits.model_dump_json()}))


def read_window_limits(artifacts: ArtifactStore, job_id: uuid.UUID) -> WindowLimits:
    """What `write_window_limits` kept.

    Raises:
        ProblemError: It is not there or not whole; the job writes it again.
    """
    content = artifacts.read(candidates_name(job_id))
    found = None if content is None else unpack(content)
    if found is None:
        detail = "the list of what the picks keep to is missing or damaged"
        raise ProblemError({"type": parking.DAMAGED, "title": "Sketches are damaged", "detail": detail})
    return WindowLimits.model_validate_json(found.metadata["limits"])
