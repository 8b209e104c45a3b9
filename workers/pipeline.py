"""A job as stages: read -> gradients -> select -> publish. Each can be run again and finds what it did before.

Reading and gradients leave content-addressed files behind, so a job that starts anew (its worker died, or another
job had the same data and model) skips to the first thing that is not there. Publishing is one transaction.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from app.artifacts import rows_path
from app.db import leases, selections
from app.db.selections import MAIN, Head, Picks
from app.db.tables import Dataset, Job, Stage, State
from app.job_request import JobRequest
from app.uris import check_model_uri, check_uri
from workers.conflict_statistics import conflict_statistics
from workers.data.corpus import LAYOUT_VERSION, build_corpus
from workers.data.export import write_rows
from workers.data.fetch import fetch
from workers.data.rejection import Reason, enforce_limit
from workers.failures import JobError
from workers.gradients.artifacts import LocalArtifacts
from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.gradients.shards import ShardStore, sketch_key
from workers.process import current_process
from workers.selection import SelectionCancelledError, SelectionConfig, select
from workers.task import run_leased

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from app.db.tables import Json
    from app.job_request import Budget
    from workers.data.corpus import Corpus
    from workers.data.fetch import Snapshot
    from workers.gradients.model import ProxyModel
    from workers.keeper import Keeper
    from workers.process import Process
    from workers.selection import Progress, Selection

logger = logging.getLogger(__name__)

ROWS_NAMED = 100


def run_job(job_id: str, dispatch: int) -> None:
    """The queue's entry: run a job to its end."""
    process = current_process()
    run_leased(
        process,
        Job,
        job_id,
        dispatch,
        lambda keeper: _Run(process, keeper).run(),
        discard=lambda job: shutil.rmtree(rows_path(process.settings, job, "x").parent, ignore_errors=True),
    )


@dataclass(frozen=True, slots=True)
class Read:
    """What the reading stage found."""

    snapshot: Snapshot
    model: ProxyModel
    corpus: Corpus


@dataclass(frozen=True, slots=True)
class Sketched:
    """The sketches of the samples that have a finite gradient.

    Attributes:
        values: Shape (n, p), float32.
        rows: Row number in the dataset of each, shape (n,), int64.
        rejected: Row numbers of all rows that can't be used, by reason.
        key: Content address of the sketches.
        reused: Whether all of them were there before.
    """

    values: NDArray[np.float32]
    rows: NDArray[np.int64]
    rejected: dict[Reason, list[int]]
    key: str
    reused: bool


class _Run:
    """One attempt at a job."""

    def __init__(self, process: Process, keeper: Keeper) -> None:
        self.process = process
        self.keeper = keeper
        self.seconds: dict[str, float] = {}
        with process.sessions() as session:
            job = session.get_one(Job, keeper.lease.id)
            self.dataset = None if job.dataset_id is None else session.get(Dataset, job.dataset_id)
        self.request = JobRequest.model_validate(job.request)

    def run(self) -> None:
        """All stages; raises what ends the job otherwise than by success."""
        with self._timed(Stage.READING):
            read = self._read()
        with self._timed(Stage.GRADIENTS):
            sketched = self._sketch(read)
        with self._timed(Stage.SELECTING):
            chosen = self._select(sketched)
        self._publish(read, sketched, chosen)

    def _read(self) -> Read:
        """Fetch the dataset, load the model, turn rows into tokens."""
        settings, request = self.process.settings, self.request
        snapshot = self._fetch()
        model = self.process.models.get(
            check_model_uri(request.model.uri, settings), dtype=request.model.dtype, device=self.process.device
        )
        meter = self.keeper.enter(Stage.READING, None if self.dataset is None else self.dataset.rows, "rows")
        columns = request.dataset.columns
        corpus = build_corpus(
            snapshot,
            model.tokenizer,
            columns=None if columns is None else columns.model_dump(exclude_none=True),
            max_length=request.model.max_length,
            settings=settings,
            on_rows=meter.at,
            should_stop=self.keeper.should_stop,
        )
        enforce_limit(corpus.rejected, corpus.rows_total, request.dataset.max_rejected_fraction)
        picks_of(request.selection.budget, len(corpus))
        return Read(snapshot, model, corpus)

    def _fetch(self) -> Snapshot:
        meter = self.keeper.enter(Stage.READING, None, "bytes")
        if self.dataset is not None:
            uri = check_uri(self.dataset.uri, self.process.settings, self.dataset.format)
        elif self.request.dataset.uri is not None:
            uri = check_uri(self.request.dataset.uri, self.process.settings, self.request.dataset.format)
        else:
            raise JobError("dataset-gone", "The dataset is gone", "dataset.id", "the registered dataset was deleted")
        snapshot = fetch(uri, self.process.settings, on_bytes=meter.at, should_stop=self.keeper.should_stop)
        known = None if self.dataset is None else self.dataset.fingerprint
        if known is not None and known != snapshot.fingerprint:
            raise JobError(
                "dataset-changed",
                "The dataset has changed",
                "dataset.id",
                f"{uri.uri} was {known} when it was registered and is {snapshot.fingerprint} now: register it again",
            )
        return snapshot

    def _sketch(self, read: Read) -> Sketched:
        """Compute the shards of sketches that are not there yet."""
        corpus = read.corpus
        config = self._gradient_config()
        key = sketch_key(
            dataset_digest=corpus.digest,
            model_revision=read.model.revision,
            dtype=self.request.model.dtype,
            template_version=LAYOUT_VERSION,
            config=config,
        )
        store = ShardStore(
            LocalArtifacts(self.process.settings.artifacts_path),
            key,
            samples=len(corpus),
            sketch_dim=config.sketch_dim,
            shard_rows=self.process.settings.shard_rows,
        )
        missing = store.missing()
        if missing:
            self._fill(store, missing, GradientEngine(read.model, config), corpus)
        return self._usable(store, corpus, reused=not missing)

    def _fill(self, store: ShardStore, missing: list[int], engine: GradientEngine, corpus: Corpus) -> None:
        meter = self.keeper.enter(Stage.GRADIENTS, len(corpus), "samples")
        meter.resume_at(len(corpus) - sum(len(store.rows(shard)) for shard in missing))
        for shard in missing:
            sketches = engine.sketch(
                [corpus[i] for i in store.rows(shard)],
                on_batch=lambda batch: meter.add(batch.samples),
                should_stop=self.keeper.should_stop,
            )
            store.write(shard, sketches)

    def _usable(self, store: ShardStore, corpus: Corpus, *, reused: bool) -> Sketched:
        """Leave out the samples whose gradient is not finite: they count as rejected rows."""
        stored = store.load(scratch=self.process.settings.cache_path)
        rejected = {reason: rows.tolist() for reason, rows in corpus.rejected.items() if len(rows)}
        if stored.finite.all():
            return Sketched(stored.values, corpus.rows, rejected, store.key, reused)
        rejected[Reason.NON_FINITE_GRADIENT] = corpus.rows[~stored.finite].tolist()
        enforce_limit(rejected, corpus.rows_total, self.request.dataset.max_rejected_fraction)
        return Sketched(stored.values[stored.finite], corpus.rows[stored.finite], rejected, store.key, reused)

    def _select(self, sketched: Sketched) -> dict[str, Selection]:
        """Run the method asked for, then the baselines on as many picks; by label."""
        spec = self.request.selection
        config = SelectionConfig(
            budget=picks_of(spec.budget, len(sketched.rows)),
            conflict_penalty=spec.conflict_penalty,
            alpha=spec.alpha,
            early_stop_ratio=spec.early_stop_ratio,
            method=spec.method,
            seed=spec.seed,
            device=str(self.process.device),
        )
        main = self._select_one(sketched, config)
        picked = len(main.indices)
        chosen: dict[str, Selection] = {MAIN: main}
        for method in spec.baselines:
            chosen[method] = self._select_one(sketched, config.baseline(method, budget=picked))
        return chosen

    def _select_one(self, sketched: Sketched, config: SelectionConfig) -> Selection:
        meter = self.keeper.enter(Stage.SELECTING, None, "picks")

        def on_progress(progress: Progress) -> None:
            if progress.stage == "picking":
                meter.at(progress.done, progress.total)

        return select(sketched.values, config, on_progress=on_progress, should_stop=self.keeper.should_stop)

    def _publish(self, read: Read, sketched: Sketched, chosen: dict[str, Selection]) -> None:
        """Write the picked rows, then everything else in one transaction; a lost or cancelled job leaves nothing."""
        settings, lease = self.process.settings, self.keeper.lease
        began = time.monotonic()
        self.keeper.enter(Stage.PUBLISHING, len(chosen[MAIN].indices), "picks")
        destination = rows_path(settings, lease.id, read.snapshot.format)
        destination.parent.mkdir(parents=True, exist_ok=True)
        write_rows(read.snapshot, sketched.rows[chosen[MAIN].indices], destination, settings)
        result = self._result(read, sketched, chosen)
        with self.process.sessions() as session:
            result["seconds"][Stage.PUBLISHING] = round(time.monotonic() - began, 3)
            ended = leases.finish(session, lease, State.SUCCEEDED, result=result, stage=None, progress=None)
            if not ended:
                session.rollback()
                raise SelectionCancelledError("the job was cancelled or lost while it was published")
            for label, selection in chosen.items():
                head = Head(
                    label=label,
                    method=self.request.selection.method if label == MAIN else label,
                    log_det=float(selection.log_det[-1]),
                    conflicts=conflict_statistics(selection),
                )
                selections.store(session, lease.id, head, _picks(selection, sketched.rows), settings.chunk_rows)
            selections.store_rejected(session, lease.id, {str(key): rows for key, rows in sketched.rejected.items()})
            session.commit()

    def _result(self, read: Read, sketched: Sketched, chosen: dict[str, Selection]) -> Json:
        main = chosen[MAIN]
        guarantees = main.guarantees
        return {
            "rows_total": read.corpus.rows_total,
            "rows_usable": len(sketched.rows),
            "selected": len(main.indices),
            "truncated": read.corpus.truncated,
            "rejected": [
                {"reason": reason, "count": len(rows), "rows": rows[:ROWS_NAMED]}
                for reason, rows in sorted(sketched.rejected.items())
            ],
            "tokens": read.corpus.tokens,
            "log_det": float(main.log_det[-1]),
            "alpha": main.alpha,
            "stop_reason": main.stop_reason,
            "certificate": {
                "value": guarantees.certificate,
                "optimum_upper_bound": guarantees.optimum_upper_bound,
                "additive_bound": guarantees.additive_bound,
                "curvature": guarantees.curvature,
                "curvature_factor": guarantees.curvature_factor,
                "epsilon_bound_violations": guarantees.epsilon_bound_violations,
            },
            "mean_conflict": float(main.conflicts.mean()),
            "format": read.snapshot.format,
            "fingerprint": read.snapshot.fingerprint,
            "model_revision": read.model.revision,
            "sketches": sketched.key,
            "sketches_reused": sketched.reused,
            "seconds": dict(self.seconds),
            "baselines": {label: float(one.log_det[-1]) for label, one in chosen.items() if label != MAIN},
            "versions": {name: version(name) for name in ("spice-select", "torch", "transformers")},
        }

    def _gradient_config(self) -> GradientConfig:
        wanted = self.request.gradients
        return GradientConfig(
            target=wanted.target,
            rank=wanted.rank,
            sketch_dim=wanted.sketch_dim,
            seed=wanted.seed,
            loss_normalization=wanted.loss_normalization,
            normalize=wanted.normalize,
            token_budget=self.process.settings.token_budget,
        )

    @contextmanager
    def _timed(self, stage: Stage) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[stage] = round(time.monotonic() - began, 3)


def picks_of(budget: Budget, usable: int) -> int:
    """The number of picks that a budget stands for: a fraction is of the usable rows, rounded down, at least 1.

    Raises:
        JobError: It is more than there are usable rows.
    """
    if budget.count is None:
        # A fraction such as 0.29 of 100 must give 29 although 0.29 * 100 is a little less in floating point.
        return max(1, math.floor(round((budget.fraction or 0) * usable, 6)))
    if budget.count > usable:
        raise JobError(
            "budget-too-large",
            "The budget is larger than the dataset",
            "selection.budget.count",
            f"is {budget.count}, but only {usable} rows can be used: ask for fewer, or for a fraction",
        )
    return budget.count


def _picks(selection: Selection, rows: NDArray[np.int64]) -> Picks:
    return Picks(
        indices=rows[selection.indices].tolist(),
        marginal_gains=selection.marginal_gains.tolist(),
        epsilons=selection.epsilons.tolist(),
        conflicts=selection.conflicts.tolist(),
        log_det=selection.log_det.tolist(),
    )
