"""What a job reads: its own dataset, those beside it, and what its constraints are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.core.contracts.job_plan import RangesPlan
from app.core.db.tables import Stage
from app.core.lifecycle import measurements, parking, quotas
from app.core.lifecycle.measurements import Took
from app.core.storage import pieces_prefix
from workers.data.corpus import ColumnsDiffer
from workers.data.rejection import enforce_limit
from workers.data.sources import source_column
from workers.models.architecture import check_length
from workers.runtime.failures import JobError
from workers.stages import measuring
from workers.stages.candidates import picks_of
from workers.stages.decontamination import evaluation_of, held_against
from workers.stages.extending import kept_of, with_kept
from workers.stages.limits import check_possible, read_membership
from workers.stages.purposes import POOL, purpose_source, purposes_of, read_purpose
from workers.stages.reading import corpus_of, note_shortest, opened
from workers.stages.schedule import check_windows

if TYPE_CHECKING:
    from app.core.contracts.job_plan import JobPlan
    from app.core.contracts.selection_request import Purpose
    from workers.runtime.heartbeat import Meter
    from workers.stages.decontamination import Evaluation
    from workers.stages.leased_job import LeasedJob
    from workers.stages.limits import Membership
    from workers.stages.pieces import Pieces
    from workers.stages.reading import Opened, Reading


@dataclass(frozen=True, slots=True, eq=False)
class JobReading:
    """All that a job reads.

    Attributes:
        readings: Its datasets by role, its own first.
        membership: What the constraints are about.
        anew: Whether rows of its own dataset were made into tokens, rather than found as tokens; None where workers
            shared that.
        pieces: Key of the corpus of its own dataset, where that was read in ranges.
    """

    readings: dict[str, Reading]
    membership: Membership
    anew: bool | None
    pieces: str | None

    @property
    def own(self) -> Reading:
        """The job's own dataset."""
        return self.readings[POOL]

    def planned(self, plan: JobPlan) -> JobPlan:
        """The plan, with what the datasets were."""
        beside = {role: one.snapshot.fingerprint for role, one in self.readings.items() if role != POOL}
        told = ({"beside": beside} if beside else {}) | ({"pieces": self.pieces} if self.pieces else {})
        return plan.model_copy(update=told)


def read_job(job: LeasedJob) -> JobReading | None:
    """Read everything, and refuse what no selection can come of before gradients are computed.

    None where the job is parked until workers have read the ranges of its dataset.

    Raises:
        JobError: A dataset is not what it was, has no such rows or columns, or is beyond a quota; constraints or the
            budget can't be met.
        DatasetError: A dataset can't be read, or too many rows are of no use.
        ModelError: A row is longer than the model reads.
        Stopped: The job was cancelled or lost meanwhile.
    """
    first = Stage.READING not in job.seconds
    with job.timed(Stage.READING):
        reading = _read(job)
    if first and reading is not None:
        _note_time(job, reading)
    return reading


def _read(job: LeasedJob) -> JobReading | None:
    beside = {role: _read_beside(job, role, purpose) for role, purpose in purposes_of(job.request.selection).items()}
    evaluation = evaluation_of(job.context, job.id, job.source, job.should_stop)
    found = _read_own(job)
    if found is None:
        return None
    own, anew, pieces = found
    note_shortest(job.context, job.request, own.corpus)
    _count(job, own.corpus.rows_total + sum(one.corpus.rows_total for one in beside.values()))
    return JobReading({POOL: own, **beside}, _membership(job, own, evaluation), anew, pieces)


def _note_time(job: LeasedJob, reading: JobReading) -> None:
    """Keep how long reading took; for the estimates of later jobs, if one worker did it."""
    if job.plan.ranges is not None:
        job.seconds[Stage.READING] = round(job.now() - job.plan.ranges.since, 3)
    if reading.anew is None:
        return
    corpus = reading.own.corpus
    kind = measuring.of_reading(job.request, reading.own.model.revision, found=not reading.anew)
    took = Took(corpus.rows_total, corpus.tokens, float(max(corpus.tokens, 1)), job.seconds[Stage.READING])
    with job.context.sessions() as session:
        measurements.note(session, kind, took)
        session.commit()


def _read_beside(job: LeasedJob, role: str, purpose: Purpose) -> Reading:
    source = purpose_source(job.context, job.id, job.source, role, job.plan.beside.get(role))
    return read_purpose(job.context, role, purpose, source, job.should_stop)


def _read_own(job: LeasedJob) -> tuple[Reading, bool | None, str | None] | None:
    """The job's own dataset, whether its rows were made into tokens just now, and the key of its pieces if it has any.

    None where the job is parked.
    """
    again = Stage.READING in job.seconds  # to a worker's next turn reading is not told: a job never goes back
    fetching = None if again else job.heartbeat.enter(Stage.READING, None, "bytes")
    counting: list[Meter] = []

    def on_rows(rows: int) -> None:
        if not counting:
            counting.append(job.heartbeat.enter(Stage.READING, job.source.rows, "rows"))
        counting[0].at(rows)

    dataset = opened(job.context, job.source, job.should_stop, None if fetching is None else fetching.at)
    pieces = dataset.pieces(job.context)
    if _park_for_ranges(job, dataset, pieces):
        return None
    try:
        reading = corpus_of(job.context, dataset, pieces, job.should_stop, None if again else on_rows)
    except ColumnsDiffer:
        pieces = dataset.pieces(job.context)
        if _park_for_ranges(job, dataset, pieces):
            return None
        reading = corpus_of(job.context, dataset, pieces, job.should_stop, None if again else on_rows)
    wanted, corpus = job.request, reading.corpus
    enforce_limit(
        corpus.rejected,
        corpus.rows_total,
        wanted.dataset.max_rejected_fraction,
        said=corpus.said,
        needed=corpus.needed,
    )
    source_column(reading.snapshot, job.context.settings, wanted.dataset.source_column)
    if wanted.selection.budget.tokens is None:
        picks_of(wanted.selection.budget, len(corpus), 0)
    check_length(*corpus.longest(), reading.model.longest)  # a budget that can be met is of one row or more
    job.context.corpus = corpus
    key = None if pieces is None or pieces.cut is None else pieces.key
    return reading, None if job.plan.ranges is not None else bool(counting), key


def _park_for_ranges(job: LeasedJob, dataset: Opened, pieces: Pieces | None) -> bool:
    """Let go of the job until workers have read the ranges that are missing.

    False where none is, or where the job's own shards were to read them: then it reads the dataset as a whole.
    """
    if pieces is None or pieces.put_together():
        return False
    plan = job.plan.ranges
    if plan is not None and plan.key in ("", pieces.key) and job.plan.behind is None:
        return False
    pieces.cut_up(dataset.snapshot)
    sizes = pieces.missing()
    if not sizes:
        return False
    since = job.now() if plan is None else plan.since
    parked = job.plan.model_copy(
        update={
            "fingerprint": dataset.snapshot.fingerprint,
            "work": pieces_prefix(pieces.key),
            "behind": None,
            "ranges": RangesPlan(key=pieces.key, since=since),
        }
    )
    job.park(parking.RANGES, sizes, parked)
    return True


def _count(job: LeasedJob, rows: int) -> None:
    """Count the rows against the project's quota: their number is known only after reading."""
    with job.context.sessions() as session:
        excess = quotas.count_rows(session, job.id, rows, job.context.settings)
    if excess is not None:
        raise over_quota(excess)


def over_quota(excess: quotas.Excess) -> JobError:
    """What a job fails with whose rows are more than its project may use."""
    return JobError("quota-exceeded", "The project's quota is used up", "dataset", excess.message)


def _membership(job: LeasedJob, reading: Reading, evaluation: Evaluation | None) -> Membership:
    """What the constraints are about, if a selection can meet them."""
    wanted, corpus = job.request, reading.corpus
    spec = wanted.selection
    membership = read_membership(reading.snapshot, corpus, spec, wanted.dataset, job.context.settings, job.should_stop)
    if wanted.extends is not None:
        membership = with_kept(membership, kept_of(job.context, wanted.extends, corpus))
    if evaluation is not None:
        overlapping = evaluation.rows_of(reading.snapshot, corpus.shape, job.context.settings, job.should_stop)
        membership = held_against(membership, overlapping, evaluation)
    budget = None if spec.budget.tokens is not None else picks_of(spec.budget, len(corpus), membership.kept_count)
    if wanted.schedule is not None:
        check_windows(spec, wanted.schedule, membership, corpus)
    else:
        check_possible(spec, membership, corpus, budget)
    return membership
