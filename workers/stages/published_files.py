"""The files of rows that a job publishes, written on this machine: at its end, and again if one was damaged since."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from app.core.contracts.row_scores import GAIN_AT_END, NEAREST, NEAREST_COSINE
from app.core.storage import excerpts_name, picks_name, row_scores_name, rows_name, suspects_name
from workers.data.excerpts import write_excerpts
from workers.data.export import write_rows
from workers.stages.scores import written_scores
from workers.statistics.passed_over import passed_over

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from app.core.db.tables import Json
    from app.core.settings import Settings
    from workers.data.fetch import Snapshot
    from workers.stages.published import Published


@contextmanager
def written_files(
    settings: Settings,
    job_id: uuid.UUID,
    published: Published,
    should_stop: Callable[[], bool],
    watch: Callable[[int], None],
) -> Iterator[Mapping[str, Path]]:
    """All files by their names in the artifact store, for as long as the block lasts.

    Args:
        settings: Where files are written, and the limits of reading.
        job_id: The job.
        published: What it publishes.
        should_stop: Asked now and then.
        watch: Called with the picked rows written so far; what it raises ends the writing.

    Raises:
        Stopped: `should_stop` said so.
    """
    snapshot, candidates, picked = published.reading.snapshot, published.candidates, published.main.indices
    with written_rows(settings, snapshot, candidates.rows[picked], watch) as rows:
        excerpts, digests = rows.with_suffix(".excerpts"), rows.with_suffix(".digests")
        try:
            subset = replace(snapshot, path=rows, parts=(), compression=None, bytes=rows.stat().st_size)
            corpus, column = published.reading.corpus, published.source_column
            write_excerpts(subset, corpus.shape, corpus.wanted, _ranked(published), excerpts, settings, column)
            digests.write_bytes(_digests(published))
            further = _further_scores(published, should_stop)
            with written_scores(
                settings, published.reading, candidates, candidates.rows[picked], further, column, should_stop
            ) as (scores, suspects):
                yield {
                    excerpts_name(job_id): excerpts,
                    rows_name(job_id, snapshot.format): rows,
                    picks_name(job_id): digests,
                    row_scores_name(job_id): scores,
                    suspects_name(job_id): suspects,
                }
        finally:
            excerpts.unlink(missing_ok=True)
            digests.unlink(missing_ok=True)


@contextmanager
def written_rows(
    settings: Settings, snapshot: Snapshot, rows: NDArray[np.int64], watch: Callable[[int], None]
) -> Iterator[Path]:
    """Rows of a dataset in a file of their own in the dataset's format; the arguments are those of `write_rows`."""
    directory = settings.cache_path / "rows"
    directory.mkdir(parents=True, exist_ok=True)
    written = directory / f".{secrets.token_hex(8)}.{snapshot.format}"
    try:
        write_rows(snapshot, rows, written, settings, watch)
        yield written
    finally:
        written.unlink(missing_ok=True)


def _digests(published: Published) -> bytes:
    """Which rows the picks are, for jobs over other pools that have them too."""
    corpus, rows = published.reading.corpus, published.candidates.rows[published.main.indices]
    return np.ascontiguousarray(corpus.digests[np.searchsorted(corpus.rows, rows)]).tobytes()


def known_share(share: float) -> float | None:
    """A share of the reselections as JSON has it: NaN, where a row was a candidate of none, is null."""
    return None if np.isnan(share) else float(share)


def _ranked(published: Published) -> Iterator[Json]:
    """What is known of each pick besides its text, in file order."""
    main, candidates, stability = published.main, published.candidates, published.stability
    suspect = candidates.suspect[candidates.places]
    rows = published.candidates.rows[main.indices]
    parts, starts = published.reading.snapshot.parts, published.reading.corpus.starts
    for place in np.argsort(rows).tolist():
        yield {
            "rank": place + 1,
            "index": int(rows[place]),
            **({"file": parts[int(np.searchsorted(starts, rows[place], side="right")) - 1].name} if parts else {}),
            "marginal_gain": float(main.marginal_gains[place]),
            "epsilon": float(main.epsilons[place]),
            "conflict": float(main.conflicts[place]),
            **({} if main.weights is None else {"weight": float(main.weights[place])}),
            "suspect": bool(suspect[main.indices[place]]),
            **({} if stability is None else {"stability": known_share(stability[main.indices[place]])}),
        }


def _further_scores(published: Published, should_stop: Callable[[], bool]) -> dict[str, NDArray[np.float64]]:
    """What the table of scores has besides figures of each row: what methods need, cosines, and what was passed over.

    Raises:
        Stopped: `should_stop` said so.
    """
    found = {f"{role}_cosine": cosines for role, cosines in published.objective.bearings.cosines.items()}
    stability, candidates, main = published.stability, published.candidates, published.main
    left = passed_over(published.objective.values, main.indices, main.alpha, should_stop)
    if left is not None:
        rank = np.nan_to_num(left.nearest).astype(np.int64)
        nearest = np.where(np.isnan(left.nearest), np.nan, candidates.rows[main.indices[rank]])
        found |= {GAIN_AT_END: left.gain, NEAREST: nearest, NEAREST_COSINE: left.cosine}
    if stability is not None:
        found["stability"] = stability
    whole = dict(published.figures)
    for name, values in found.items():
        whole[name] = np.full(len(candidates.usable), np.nan)
        whole[name][candidates.places] = values
    return whole
