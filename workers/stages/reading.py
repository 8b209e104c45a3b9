"""Read a job's samples; the worker that plans the job and the workers of its shards get the same samples."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.core.contracts.job_plan import JobPlan
from app.core.contracts.job_request import JobRequest
from app.core.db.tables import DEFAULT_PROJECT, Dataset, Estimate, Job, Proof
from app.core.lifecycle import shortest_rows
from app.core.uris.datasets import check_uris
from app.core.uris.models import check_adapter_uri, check_model_uri
from workers.data.conversation import Wanted
from workers.data.corpus import ColumnsDiffer, build_corpus
from workers.data.fetch import fetch, recall
from workers.data.formats import remember_columns
from workers.gradients.config import GradientConfig
from workers.gradients.shards import ShardStore, sketch_key
from workers.models.errors import ModelError
from workers.models.local import local_model
from workers.runtime.failures import JobError, understood
from workers.stages.pieces import PieceLost, Pieces

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable

    from app.core.contracts.dataset_request import DatasetRef
    from app.core.uris.datasets import DatasetUri
    from app.core.uris.models import ModelUri
    from workers.data.corpus import Corpus, Tokenising
    from workers.data.fetch import Snapshot
    from workers.gradients.adapter import Adapter
    from workers.models.tokenizer import ModelTokenizer
    from workers.runtime.context import WorkerContext

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """What a job reads, from its rows in Postgres.

    Attributes:
        request: What the client asked for.
        uri: The dataset's URI, checked against the settings of this worker.
        model: The model's URI, checked likewise.
        adapter: The adapter that gradients are taken of, if one was given.
        fingerprint: What the dataset's file must be, if it was seen before.
        planned: Whether this job has read it before: then the copy that was read will do. A job's first look is
            always at the source, so that it is the present dataset that is selected from.
        rows: Rows of the dataset, if they were counted before.
        sketch_owner: The project that keeps its sketches to itself; None if they are shared.
    """

    request: JobRequest
    uri: DatasetUri
    model: ModelUri
    adapter: Adapter | None
    fingerprint: str | None
    planned: bool
    rows: int | None
    sketch_owner: str | None = None

    @property
    def gradients(self) -> GradientConfig:
        """What is sketched, but for the batch size, which is the worker's affair."""
        wanted = self.request.gradients
        return GradientConfig(
            target=wanted.target,
            rank=wanted.rank,
            layers=wanted.layers,
            adapter=None if self.adapter is None else self.adapter.revision,
            warmup_steps=wanted.warmup_steps,
            warmup_learning_rate=wanted.warmup_learning_rate,
            preconditioner=wanted.preconditioner,
            sketch_dim=wanted.sketch_dim,
            seed=wanted.seed,
            loss_normalization=wanted.loss_normalization,
            loss_over=wanted.loss_over,
            prompt_effect=wanted.prompt_effect,
        )


@dataclass(frozen=True, slots=True)
class Opened:
    """A dataset on this machine, as stored.

    Attributes:
        snapshot: The dataset.
        model: Whose tokenizer turns its rows into tokens.
        tokenising: How that is done.
    """

    snapshot: Snapshot
    model: ModelTokenizer
    tokenising: Tokenising

    def pieces(self, context: WorkerContext) -> Pieces | None:
        """The pieces in which it may be read; None where it is read as a whole.

        Raises:
            DatasetError: It can't be read.
        """
        return Pieces.of(context, self.snapshot, self.model.tokenizer, self.tokenising)


@dataclass(frozen=True, slots=True)
class Reading:
    """A dataset on this machine, as stored and as tokens."""

    snapshot: Snapshot
    corpus: Corpus
    model: ModelTokenizer


def source_of(context: WorkerContext, job_id: uuid.UUID) -> Source:
    """The source of a job.

    Raises:
        JobError: The registered dataset is gone.
        UriRefused: This worker's settings do not allow a URI.
        ModelError: The adapter can't be read.
    """
    with context.sessions() as session:
        job = session.get_one(Job, job_id)
        dataset = None if job.dataset_id is None else session.get(Dataset, job.dataset_id)
    return source_for(context, understood(JobRequest, job.request), dataset, job.project_id, JobPlan.load(job.plan))


def source_for(
    context: WorkerContext, request: JobRequest, dataset: Dataset | None, project_id: uuid.UUID, plan: JobPlan
) -> Source:
    """The source of what a request asks for; the errors are those of `source_of`.

    Args:
        context: This worker.
        request: What the client asked for.
        dataset: The registered dataset that it names, if that is still there.
        project_id: Whose request it is.
        plan: What the job has found out; an empty one at its first look.
    """
    if dataset is not None:
        uri = check_uris(dataset.every_uri, context.settings, dataset.format)
    elif request.dataset.uris is not None or request.dataset.uri is not None:
        uri = check_uris(request.dataset.uris or (request.dataset.uri or "",), context.settings, request.dataset.format)
    else:
        raise JobError(
            "dataset-gone", "The dataset is gone", "dataset.id", "the registered dataset was deleted: register it again"
        )
    registered = None if dataset is None else dataset.fingerprint
    given = request.gradients.adapter
    return Source(
        request=request,
        uri=uri,
        model=check_model_uri(request.model.uri, context.settings),
        adapter=None if given is None else context.adapters.get(check_adapter_uri(given.uri, context.settings)),
        fingerprint=plan.fingerprint or registered,
        planned=plan.fingerprint is not None,
        rows=None if dataset is None else dataset.rows,
        sketch_owner=_sketch_owner(context, project_id),
    )


def key_for(source: Source, model_revision: str, corpus: Corpus) -> str:
    """The content key of a job's sketches: what they depend on besides their rows."""
    model = source.request.model
    return sketch_key(
        model_revision=model_revision,
        dtype=model.dtype,
        config=source.gradients,
        stored_as=source.request.gradients.store,
        dataset_digest=corpus.digest,
        frame=(model.max_length, model.chat_template),
        owner=source.sketch_owner,
    )


def sketches_of(
    context: WorkerContext, request: JobRequest, key: str, corpus: Corpus, shard_rows: int | None = None
) -> ShardStore:
    """The sketches of a corpus under a content key.

    Args:
        context: This worker.
        request: The job's.
        key: As `key_of` gives it.
        corpus: The samples.
        shard_rows: Rows of a shard; None: as this worker's settings have it.
    """
    return ShardStore(
        context.artifacts,
        key,
        digests=corpus.digests,
        sketch_dim=request.gradients.sketch_dim,
        shard_rows=shard_rows or context.settings.shard_rows,
        stored_as=request.gradients.store,
        pool=context.pool_of(corpus),
    )


def source_beside(
    context: WorkerContext, job_id: uuid.UUID, source: Source, wanted: DatasetRef, field: str, fingerprint: str | None
) -> Source:
    """The source of another dataset, read as a job's own is, with the same model and settings.

    Args:
        context: This worker.
        job_id: The job, proof or estimate that reads it: its dataset must be of the same project.
        source: The job's own.
        wanted: The other dataset.
        field: Where the request names it, for a message.
        fingerprint: What it must be, if it was read before.

    Raises:
        JobError: The registered dataset is gone.
        UriRefused: This worker's settings do not allow a URI.
    """
    request = source.request.model_copy(update={"dataset": wanted})
    if wanted.id is None:
        uri = check_uris(wanted.uris or (wanted.uri or "",), context.settings, wanted.format)
        planned = fingerprint is not None
        return replace(source, request=request, uri=uri, fingerprint=fingerprint, planned=planned, rows=None)
    with context.sessions() as session:
        dataset = session.get(Dataset, wanted.id)
        owner = session.get(Job, job_id) or session.get(Proof, job_id) or session.get(Estimate, job_id)
    if dataset is None or owner is None or dataset.project_id != owner.project_id:
        raise JobError("dataset-gone", "The dataset is gone", f"{field}.id", "it was deleted: register it again")
    return replace(
        source,
        request=request,
        uri=check_uris(dataset.every_uri, context.settings, dataset.format),
        fingerprint=fingerprint or dataset.fingerprint,
        planned=fingerprint is not None,
        rows=dataset.rows,
    )


def _sketch_owner(context: WorkerContext, project_id: uuid.UUID) -> str | None:
    """The project whose jobs keep their sketches to themselves; None if all share, and for the project `default`."""
    shared = context.settings.share_sketches or project_id == DEFAULT_PROJECT
    return None if shared else str(project_id)


def dataset_snapshot(
    context: WorkerContext,
    uri: DatasetUri,
    fingerprint: str | None,
    *,
    recalled: bool,
    should_stop: Callable[[], bool],
    on_bytes: Callable[[int, int | None], None] | None = None,
) -> Snapshot:
    """Fetch a dataset's file to this machine.

    Args:
        context: This worker.
        uri: URI of the dataset.
        fingerprint: The expected fingerprint, if the dataset was read before.
        recalled: Whether a copy of that fingerprint will do, should one be here.
        should_stop: Asked while bytes are copied.
        on_bytes: As for `fetch`.

    Raises:
        JobError: The dataset has changed since it was read.
        DatasetError: It can't be read.
        Stopped: `should_stop` said so.
    """
    snapshot = recall(uri, fingerprint, context.settings) if recalled and fingerprint is not None else None
    if snapshot is None or not context.holds.take("dataset", snapshot.path):
        snapshot = fetch(uri, context.settings, on_bytes=on_bytes, should_stop=should_stop)
        context.holds.take("dataset", snapshot.path)
    if fingerprint not in (None, snapshot.fingerprint):
        raise JobError(
            "dataset-changed",
            "The dataset has changed",
            "dataset",
            f"{uri.without_query} was {fingerprint} before and is {snapshot.fingerprint} now: register it again if "
            "dataset.id names it, and submit again",
        )
    return snapshot


def opened(
    context: WorkerContext,
    source: Source,
    should_stop: Callable[[], bool],
    on_bytes: Callable[[int, int | None], None] | None = None,
) -> Opened:
    """Fetch the dataset and the tokenizer; a copy on this machine is used again.

    Raises:
        JobError: The dataset is not what it was.
        DatasetError: It can't be read.
        ModelError: The model's tokenizer can't be used.
        Stopped: `should_stop` said so.
    """
    snapshot = dataset_snapshot(
        context, source.uri, source.fingerprint, recalled=source.planned, should_stop=should_stop, on_bytes=on_bytes
    )
    return Opened(snapshot, tokenizer_of(context, source, should_stop), tokenising(context, source.request))


def tokenizer_of(context: WorkerContext, source: Source, should_stop: Callable[[], bool]) -> ModelTokenizer:
    """The tokenizer of a job's model.

    Raises:
        ModelError: It can't be used.
        Stopped: `should_stop` said so.
    """
    return context.tokenizers.get(model_directory(context, source.model, source.request.model.dtype, should_stop))


def read(
    context: WorkerContext,
    source: Source,
    should_stop: Callable[[], bool],
    on_rows: Callable[[int], None] | None = None,
) -> Reading:
    """Fetch the dataset and turn its rows into tokens; the errors are those of `opened` and `corpus_of`, but one."""
    dataset = opened(context, source, should_stop)
    try:
        return corpus_of(context, dataset, dataset.pieces(context), should_stop, on_rows)
    except ColumnsDiffer:
        return corpus_of(context, dataset, dataset.pieces(context), should_stop, on_rows)


def samples_of(context: WorkerContext, source: Source, pieces: str | None, should_stop: Callable[[], bool]) -> Corpus:
    """A dataset's rows as tokens, on any machine: put together of its pieces, or read.

    Args:
        context: This worker.
        source: What is read.
        pieces: Key of the corpus, where the dataset was read in ranges.
        should_stop: As for `corpus_of`.

    Raises:
        JobError, DatasetError, ModelError, Stopped: As `read`.
    """
    if pieces is not None:
        found = Pieces(context.artifacts, pieces, tokenising(context, source.request))
        try:
            corpus = found.corpus(should_stop)
        except PieceLost as error:
            logger.warning("the dataset is read as a whole: %s", error)
        else:
            context.holds.take("corpus", corpus.path)
            return corpus
    return read(context, source, should_stop).corpus


def corpus_of(
    context: WorkerContext,
    dataset: Opened,
    pieces: Pieces | None,
    should_stop: Callable[[], bool],
    on_rows: Callable[[int], None] | None = None,
) -> Reading:
    """Turn a dataset's rows into tokens, or put them together of the pieces that workers have read.

    Args:
        context: This worker, whose cache may have the corpus.
        dataset: The dataset.
        pieces: Its pieces; where some are missing the dataset is read as a whole.
        should_stop: Asked once a batch or piece.
        on_rows: Called with the rows so far as often.

    Raises:
        ColumnsDiffer: The pieces are of another corpus than the dataset's; its columns are known from now on.
        DatasetError: It can't be read.
        Stopped: `should_stop` said so.
    """
    corpus = None
    if pieces is not None and pieces.there():
        try:
            corpus = pieces.corpus(should_stop, on_rows)
        except ColumnsDiffer as differ:
            remember_columns(dataset.snapshot, differ.columns)
            raise
        except PieceLost as error:
            logger.warning("the dataset is read as a whole: %s", error)
    if corpus is None:
        corpus = build_corpus(
            dataset.snapshot, dataset.model.tokenizer, **dataset.tokenising, on_rows=on_rows, should_stop=should_stop
        )
    remember_columns(dataset.snapshot, corpus.columns)
    context.holds.take("corpus", corpus.path)
    return Reading(dataset.snapshot, corpus, dataset.model)


def note_shortest(context: WorkerContext, request: JobRequest, corpus: Corpus) -> None:
    """Keep the tokens of a registered dataset's shortest usable row, which later token budgets are held against."""
    if request.dataset.id is not None and len(corpus):
        with context.sessions() as session:
            shortest_rows.note(session, request.dataset.id, request, int(corpus.lengths.min()))


def tokenising(context: WorkerContext, request: JobRequest) -> Tokenising:
    """How a request has rows turned into tokens, as `build_corpus` and `find_corpus` take it."""
    columns = request.dataset.columns
    return {
        "columns": None if columns is None else columns.model_dump(exclude_none=True),
        "max_length": request.model.max_length,
        "settings": context.settings,
        "wanted": Wanted(request.dataset.train_on, request.dataset.preference),
        "template": request.model.chat_template,
    }


def model_directory(context: WorkerContext, uri: ModelUri, dtype: str, should_stop: Callable[[], bool]) -> Path:
    """The model's directory on this machine, kept there while this process works with it.

    Raises:
        ModelError: It can't be used.
        Stopped: `should_stop` said so.
    """
    while True:
        path = _readable(uri, lambda: local_model(uri, dtype, context.settings, should_stop))
        kept = path.parent == context.settings.cache_path / "models"
        if not kept:
            context.holds.drop("model")
        if not kept or context.holds.take("model", path):
            return path


def _readable(uri: ModelUri, place: Callable[[], Path]) -> Path:
    """The directory, checked to be readable.

    Raises:
        ModelError: It may not.
    """
    try:
        path = place()
        files = sorted(path.iterdir()) if path.is_dir() else []  # what is missing, the loader says
        closed = [file.name for file in files if not os.access(file, os.R_OK)]
    except PermissionError as error:
        closed = [Path(str(error.filename)).name]
    if not closed:
        return path
    raise ModelError(
        f"model.uri: the worker, which is user {os.geteuid()}, may not read {closed[0]} of {uri.uri}: let it, as by "
        "chmod -R a+rX (safetensors writes weights for their owner alone)"
    )
