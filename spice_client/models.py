"""What the service answers, as types.

The service's OpenAPI document is the definition; a test holds these models to it. A field that a newer service sends is
kept and readable as an attribute, and a model dumped with `exclude_unset` is the answer as it was sent.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from spice_client.notebook import curves_html, table_html
from spice_client.words import certificate_words, duration, short

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Stage = Literal["reading", "gradients", "selecting", "publishing"]
Item = TypeVar("Item")

SHOWN = 4
"""Items of a list that an interactive session shows; of a longer one, how many there are."""
FINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})


class _Counted(int):
    """A number of items, in the place of the items."""

    def __repr__(self) -> str:
        return f"<{int(self):,} items>"


class Answer(BaseModel):
    """A body that the service sends."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    def document(self) -> Json:
        """The answer as it was sent."""
        return self.model_dump(mode="json", exclude_unset=True)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """What there is to say: what is not set is left out, and what is long is counted."""
        for name, value in super().__repr_args__():
            if isinstance(value, list | tuple | dict) and len(value) > SHOWN:
                yield name, _Counted(len(value))
            elif value is not None and value not in ([], {}):
                yield name, value


class FieldError(Answer):
    """One field at fault."""

    field: str
    message: str


class ProblemDetails(Answer):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int | None = None
    detail: str | None = None
    errors: list[FieldError] | None = None


class Progress(Answer):
    """How far the present stage is: `done` of `total` units, `rate` of them a second, `eta_s` seconds left."""

    done: int
    total: int | None = None
    unit: str
    rate: float | None = None
    tokens_per_s: float | None = None
    eta_s: float | None = None

    def line(self) -> str:
        """`41984/100000 samples, 212 a second, 4:33 left`; what is not known is left out."""
        parts = [f"{self.done:,}{f'/{self.total:,}' if self.total is not None else ''} {self.unit}"]
        if self.rate:
            parts.append(f"{self.rate:.3g} a second" if self.rate < 1000 else f"{self.rate:,.0f} a second")  # noqa: PLR2004
        if self.eta_s is not None:
            parts.append(f"{duration(self.eta_s)} left")
        return ", ".join(parts)


class Worker(Answer):
    """What one worker does for a job right now."""

    worker: str
    shard: int
    done: int
    total: int
    rate: float | None = None
    tokens_per_s: float | None = None


class Columns(Answer):
    """Which columns hold what, by role."""

    prompt: str | None = None
    response: str | None = None
    completion: str | None = None
    instruction: str | None = None
    input: str | None = None
    output: str | None = None
    messages: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    text: str | None = None
    system: str | None = None
    history: str | None = None
    tools: str | None = None
    chat_template_kwargs: str | None = None
    label: str | None = None


class DatasetRef(Answer):
    """The data that a job selects from."""

    uri: str | None = None
    uris: tuple[str, ...] | None = None
    id: UUID | None = None
    format: str | None = None
    columns: Columns | None = None
    train_on: str = "all"
    preference: str = "chosen"
    max_rejected_fraction: float = 0.05


class ModelRef(Answer):
    """The proxy model that scores the data."""

    uri: str
    dtype: str = "float32"
    max_length: int = 512
    devices: str = "one"
    chat_template: str | None = None


class Budget(Answer):
    """How much to pick."""

    fraction: float | None = None
    count: int | None = None
    tokens: int | None = None


class Adapter(Answer):
    """A LoRA adapter that PEFT saved."""

    uri: str


class Gradients(Answer):
    """Whose gradients, and how small they are made."""

    target: str = "lora"
    rank: int = 8
    layers: tuple[str, ...] | None = None
    adapter: Adapter | None = None
    warmup_steps: int = 0
    warmup_learning_rate: float = 2e-4
    preconditioner: str = "none"
    sketch_dim: int = 2048
    seed: int = 0
    loss_normalization: str = "sum"
    loss_over: str = "response"
    prompt_effect: bool = True
    store: str = "float32"


class Clip(Answer):
    """How long a gradient may be, as a quantile of the pool's lengths."""

    clip: float


class Bounds(Answer):
    """Which rows stay, by a figure of theirs."""

    min: float | None = None
    max: float | None = None
    min_quantile: float | None = None
    max_quantile: float | None = None


class Filters(Answer):
    """Which rows may be picked, by the figures of each."""

    loss: Bounds | None = None
    norm: Bounds | None = None
    cosine: Bounds | None = None
    ifd: Bounds | None = None
    end_loss: Bounds | None = None


class Share(Answer):
    """How much of the picks may come from a source."""

    min: float | None = None
    max: float | None = None


class RowsByColumn(Answer):
    """The rows that a column marks."""

    column: str


class NearDuplicates(Answer):
    """Which rows are too much alike for both to be picked."""

    cosine: float | None = None
    text: bool = False


class Constraints(Answer):
    """What the picks keep to."""

    sources: dict[str, Share] | None = None
    include: tuple[int, ...] | RowsByColumn | None = None
    exclude: tuple[int, ...] | RowsByColumn | None = None
    near_duplicates: NearDuplicates | None = None


class Purpose(Answer):
    """A small dataset of what training on the picks must not harm."""

    dataset: DatasetRef
    price: float = 0.1
    group_column: str | None = None


class Target(Purpose):
    """A small dataset of what the picks are for."""

    weight: float = 0.8


class Sweep(Answer):
    """Settings to select with as well."""

    conflict_penalty: tuple[float, ...] | None = None
    early_stop_ratio: tuple[float | None, ...] | None = None
    alpha: tuple[float | str, ...] | None = None
    normalize: tuple[str | Clip, ...] | None = None


class Stability(Answer):
    """How often to select again."""

    sketches: int = 5
    bootstrap: int = 20


class Selection(Answer):
    """How a job picks."""

    method: str = "spice"
    budget: Budget
    fisher: str = "exact"
    normalize: str | Clip = "unit"
    filters: Filters | None = None
    representative: float | None = None
    constraints: Constraints | None = None
    target: Target | None = None
    protect: Purpose | None = None
    sweep: Sweep | None = None
    stability: Stability | None = None
    alpha: float | str = "auto"
    conflict_penalty: float = 0.1
    early_stop_ratio: float | None = None
    seed: int = 0
    baselines: list[str] = []


class Schedule(Answer):
    """Windows of a shuffled pool, and training on their picks in between."""

    windows: int = 120
    keep: int = 12
    train_every: int = 10
    epochs: int = 1
    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    warmup_ratio: float = 0.03
    seed: int = 0


class Rejected(Answer):
    """Rows that could not be used, for one reason; `rows` are the first hundred."""

    reason: str
    count: int
    rows: list[int]
    message: str | None = None


class Certificate(Answer):
    """What is proven about a subset: `value` is a lower bound on F(S)/F(S*). Bounds are in nats."""

    value: float
    optimum_upper_bound: float
    additive_bound: float | None = None
    curvature: float | None = None
    curvature_factor: float | None = None
    epsilon_bound_violations: int


class PartitionsGuarantee(Answer):
    """What selecting in random parts is proven to hold, in expectation."""

    factor: float
    loss: float


class Limits(Answer):
    """How much may be computed for a job."""

    gradient_tokens: int | None = None
    seconds: float | None = None
    on_limit: str = "stop"


class WebhookDelivery(Answer):
    """How far the telling of a job's end is."""

    url: str
    state: str
    attempts: int
    status: int | None = None
    error: str | None = None
    next_attempt_at: datetime | None = None


class Baseline(Answer):
    """Another method on the same sketches: means over its runs, log-det in nats, overlap as Jaccard index."""

    runs: int = 1
    log_det: float
    log_det_std: float = 0.0
    mean_conflict: float
    overlap: float


class Decontamination(Answer):
    """The evaluation set that rows were held against: its rows, those too short to find anything, its runs of words."""

    rows: int
    short: int
    runs: int
    fingerprint: str


class LeagueRow(Answer):
    """One method of a job beside the others: means over its runs, log-det and coverage in nats, shares by source."""

    method: str
    runs: int
    rows: float
    tokens: float
    log_det: float
    mean_conflict: float
    overlap: float
    target_covered: float | None = None
    target_cosine: float | None = None
    sources: dict[str, float] = {}


class GradientsComputed(Answer):
    """Rows whose gradients a job computed, and rows whose sketches it found."""

    computed: int
    reused: int


class DatasetFile(Answer):
    """One file of a dataset of many, and the number of its first row."""

    uri: str
    first_row: int
    rows: int


class SubsetChanges(Answer):
    """How a job's subset differs from another's; `removed` are row numbers in the other's dataset."""

    job_id: UUID
    since: UUID
    added: list[int]
    removed: list[int]
    kept: int


class SuspectsCounted(Answer):
    """Rows that look wrong, how many of them were picked, and how many rows the list of suspects has."""

    rows: int
    picked: int
    listed: int


class Limited(Answer):
    """What kept a job from scoring all rows."""

    limit: str
    value: float
    used: float
    rows_scored: int
    rows_not_scored: int


class SourcePicked(Answer):
    """Rows of one source among the picks, with its limits in rows."""

    least: int
    most: int
    picked: int
    candidates: int


class ConstraintCost(Answer):
    """One constraint as if it were the only one: nats that it costs, and what is proven under it."""

    log_det_lost: float
    certificate: float
    kept_out: int


class ConstraintsMet(Answer):
    """What the constraints came to, together and each."""

    log_det_lost: float | None
    kept_out: dict[str, int]
    each: dict[str, ConstraintCost]
    rows: dict[str, int] = {}
    sources: dict[str, SourcePicked] = {}


class GroupReached(Answer):
    """How far the picks reach towards one group of a purpose's rows."""

    rows: int
    covered: float
    covered_per_direction: float
    cosine: float


class Reached(Answer):
    """How far the picks reach towards a purpose, and how far random rows do: nats in its directions, mean cosine."""

    rows: int
    sketched: int
    unusable: dict[str, int] = {}
    gradients: GradientsComputed
    fingerprint: str
    sketches: str
    directions: int
    covered: float
    covered_random: float
    cosine: float
    cosine_random: float
    groups: dict[str, GroupReached] = {}
    worst_group: str | None = None


class SweepPoint(Answer):
    """What one combination of a sweep gives: log-det in nats at its own alpha and lengths."""

    conflict_penalty: float
    early_stop_ratio: float | None = None
    alpha: float
    normalize: str | Clip
    selected: int
    log_det: float
    mean_conflict: float
    certificate: float
    shared: float
    lacking: str | None = None


class ScheduleFound(Answer):
    """What a schedule came to: conflicts from 0 to 1, losses in nats a response token, Spearman's correlations."""

    windows: int
    steps: int
    conflict_first: float | None = None
    conflict_last: float | None = None
    loss_first: float | None = None
    loss_last: float | None = None
    conflict_gain: float | None = None
    conflict_epsilon: float | None = None

    def words(self) -> str:
        """In a line."""
        parts = [f"{self.windows:,} windows, {self.steps:,} steps of training"]
        for name, first, last in (
            ("conflict", self.conflict_first, self.conflict_last),
            ("loss", self.loss_first, self.loss_last),
        ):
            if first is not None and last is not None:
                parts.append(f"{name} {first:.3f} in the first tenth, {last:.3f} in the last")
        return "; ".join(parts)


class StabilityFound(Answer):
    """How sure the picks are: shares of the reselections that pick them."""

    sketches: int
    bootstrap: int
    impossible: int
    mean: float | None = None
    smallest: float | None = None
    always: int


class Extension(Answer):
    """What a job added to the picks of an earlier job, in nats; `gone` are row numbers in that job's dataset."""

    job: UUID
    rows_kept: int
    rows_added: int
    rows_gone: int
    gone: list[int]
    log_det_before: float
    log_det_after: float
    log_det_gained: float


class JobResult(Answer):
    """Numbers of a succeeded job: log-det in nats, times in seconds."""

    rows_total: int
    rows_usable: int
    selected: int
    truncated: int
    rejected: list[Rejected]
    ignored_columns: dict[str, int] = {}
    files: list[DatasetFile] | None = None
    normalize: str | Clip = "none"
    representative: float = 0.0
    filtered: dict[str, int] = {}
    suspects: SuspectsCounted | None = None
    tokens: int
    tokens_selected: int | None = None
    constraints: ConstraintsMet | None = None
    extension: Extension | None = None
    target: Reached | None = None
    protect: Reached | None = None
    sweep: list[SweepPoint] | None = None
    stability: StabilityFound | None = None
    log_det: float
    alpha: float
    stop_reason: str
    certificate: Certificate
    mean_conflict: float
    format: str
    columns: Columns | None = None
    fingerprint: str
    model_revision: str
    sketches: str
    sketches_reused: bool
    left_out: list[str] | None = None
    weights_stored_as: str | None = None
    gradients: GradientsComputed | None = None
    schedule: ScheduleFound | None = None
    limited: Limited | None = None
    seconds: dict[str, float]
    baselines: dict[str, Baseline]
    league: list[LeagueRow] = []
    baselines_left_out: dict[str, str] = {}
    decontamination: Decontamination | None = None
    partitions: int | None = None
    partitions_guarantee: PartitionsGuarantee | None = None
    versions: dict[str, str]

    def lines(self) -> Iterator[tuple[str, str]]:
        """A label and a sentence for each thing that is worth knowing."""
        yield "selected", f"{self.selected:,} of {self.rows_total:,} rows (stopped by {self.stop_reason})"
        if self.filtered:
            yield "filtered", ", ".join(f"{count:,} by {reason}" for reason, count in self.filtered.items())
        if self.suspects and self.suspects.rows:
            look = "1 row looks" if self.suspects.rows == 1 else f"{self.suspects.rows:,} rows look"
            yield "suspects", f"{look} wrong, {self.suspects.picked:,} of them picked"
        if self.tokens_selected is not None:
            yield "tokens", f"{self.tokens_selected:,} of {self.tokens:,}"
        yield "log det", f"{self.log_det:.3f} nats at alpha {self.alpha:.3g}"
        for name, rows in self.ignored_columns.items():
            yield "ignored", f"{name}: {rows:,} rows have it, and nothing reads it"
        value = self.certificate.value
        if value:
            yield "certificate", certificate_words(value)
        if self.schedule is not None:
            yield "schedule", self.schedule.words()
        yield from _purpose_lines(self)
        if self.seconds:
            yield "time", ", ".join(f"{stage} {duration(spent)}" for stage, spent in self.seconds.items())


def _purpose_lines(result: JobResult) -> Iterator[tuple[str, str]]:
    added = result.extension
    if added is not None:
        gone = f", {added.rows_gone} gone" if added.rows_gone else ""
        yield "extension", f"{added.rows_added} added to {added.rows_kept} kept{gone}: {added.log_det_gained:.3f} nats"
    for method, why in result.baselines_left_out.items():
        yield "left out", f"{method}: {why}"
    met = result.constraints
    if met is not None:
        kept = ", ".join(f"{count:,} by {reason}" for reason, count in met.kept_out.items())
        cost = (
            "not measured"
            if met.log_det_lost is None
            else f"{met.log_det_lost:.3f} nats; kept out: {kept or 'nothing'}"
        )
        yield "constraints", f"cost {cost}"
        for name, one in met.sources.items():
            yield "source", f"{name}: {one.picked:,} picked, {one.least:,} to {one.most:,} allowed"
    for name, reached in (("target", result.target), ("protect", result.protect)):
        if reached is not None:
            worst = "" if reached.worst_group is None else f"; covered least: {reached.worst_group}"
            covered = f"{reached.covered:.3f} nats in its directions (random {reached.covered_random:.3f})"
            yield name, f"{covered}, cosine {reached.cosine:.3f} (random {reached.cosine_random:.3f}){worst}"
    for point in result.sweep or ():
        stop = "" if point.early_stop_ratio is None else f", omega {point.early_stop_ratio:g}"
        setting = f"lambda {point.conflict_penalty:g}{stop}, alpha {point.alpha:.3g}, lengths {point.normalize}"
        found = f"{point.selected:,} picks, certificate {point.certificate:.4f}, {point.shared:.0%} of rows shared"
        yield "sweep", f"{setting}: {found}"
    if result.stability is not None and result.stability.mean is not None:
        share, always = result.stability.mean, result.stability.always
        yield "stability", f"a pick is picked again {share:.0%} of the times; {always:,} picks each time"


class Job(Answer):
    """A job."""

    id: UUID
    name: str | None
    metadata: dict[str, str]
    state: State
    stage: Stage | None
    progress: Progress | None
    workers: list[Worker] = []
    cancel_requested: bool = False
    dataset: DatasetRef
    model: ModelRef
    gradients: Gradients
    selection: Selection
    preset: str | None = None
    schedule: Schedule | None = None
    extends: UUID | None = None
    error: ProblemDetails | None
    result: JobResult | None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    updated_at: datetime | None = None
    expires_at: datetime | None = None
    priority: str = "normal"
    limits: Limits | None = None
    timeout_s: float | None = None
    webhook: WebhookDelivery | None = None

    def __repr__(self) -> str:
        return f"<{self.summary()}>"

    def _repr_html_(self) -> str:
        return table_html(self.summary(), self.result.lines() if self.result else self._so_far())

    def summary(self) -> str:
        """The job in a line: id, state, name, and what came of it."""
        where = self.state if self.state != "running" or not self.stage else f"running ({self.stage})"
        parts = [f"job {short(self.id)}", where]
        if self.name:
            parts.append(repr(self.name))
        if self.result:
            parts += [f"{self.result.selected:,} of {self.result.rows_total:,} rows", f"{self.result.log_det:.4g} nats"]
        elif self.error:
            parts.append(self.error.title)
        return ", ".join(parts)

    def _so_far(self) -> Iterator[tuple[str, str]]:
        if self.error:
            yield "error", self.error.title
            yield "detail", self.error.detail or ""
        elif self.stage:
            yield "stage", self.stage
            yield "progress", self.progress.line() if self.progress else ""

    @property
    def ended(self) -> bool:
        """Whether the job's state is final."""
        return self.state in FINAL

    def after(self, event: Event) -> Job:
        """The job as it is once an event has happened to it."""
        if event.kind == "progress":
            known = {name: event.data.get(name) for name in Progress.model_fields}
            return self.model_copy(update={"progress": Progress.model_validate(known), "stage": event.data["stage"]})
        if event.kind == "stage":
            return self.model_copy(update={"stage": event.data["stage"], "progress": None})
        return self.model_copy(update={"state": event.data["state"]})


class SucceededJob(Job):
    """A job that succeeded: its result is there."""

    result: JobResult


ProofStage = Literal["reading", "gradients", "selecting", "training", "comparing"]
Verdict = Literal["better", "worse", "equivalent", "not_enough_runs"]


class ProofArm(Answer):
    """An arm of a proof: what was trained on, and how it scored, by metric."""

    name: str
    rows: float
    tokens: float
    steps: int
    left_out: dict[str, int] = {}
    runs: list[Json] = []
    mean: dict[str, float] = {}
    interval: dict[str, tuple[float, float] | None] = {}


class ProofComparison(Answer):
    """An arm against another by one metric: arm minus against. Of a loss, below 0 is better."""

    arm: str
    against: str
    metric: str
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    smallest_effect: float
    verdict: Verdict
    runs_needed: int | None = None
    seeds: int


class Proof(Answer):
    """A proof. Arms, comparisons, premise and cost are there once `state` is succeeded."""

    id: UUID
    name: str | None
    metadata: dict[str, str]
    state: State
    stage: ProofStage | None
    progress: Progress | None
    cancel_requested: bool = False
    job: UUID | None = None
    settings: Json = {}
    error: ProblemDetails | None
    arms: list[ProofArm] = []
    comparisons: list[ProofComparison] = []
    premise: Json | None = None
    cost: Json | None = None
    held_out: Json | None = None
    versions: dict[str, str] = {}
    notes: list[str] = []
    summary: list[str] = []
    created_at: datetime
    finished_at: datetime | None = None
    updated_at: datetime | None = None
    timeout_s: float | None = None
    expires_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether the proof's state is final."""
        return self.state in FINAL


class Event(Answer):
    """Something that happened to a job: its state, its stage or its progress."""

    id: int
    at: datetime
    kind: Literal["state", "stage", "progress"]
    data: Json


class Page(Answer, Generic[Item]):
    """A page of a list, newest first."""

    items: list[Item]
    next_cursor: str | None = None


class Dataset(Answer):
    """A registered dataset. Rows, bytes, columns, shape and fingerprint are there once `state` is succeeded."""

    id: UUID
    uri: str
    uris: list[str] | None = None
    format: str | None
    name: str | None
    metadata: dict[str, str]
    state: State
    rows: int | None
    bytes: int | None
    columns: list[str] | None
    shape: str | None
    fingerprint: str | None
    sources: dict[str, dict[str, int]] | None = None
    error: ProblemDetails | None
    created_at: datetime
    finished_at: datetime | None = None
    updated_at: datetime | None = None
    expires_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether a worker has read it, or could not."""
        return self.state in FINAL


class Upload(Answer):
    """An uploaded file of rows: give it, or its `uri`, as a job's dataset."""

    id: str
    uri: str
    name: str
    bytes: int
    uploaded_at: datetime


class CurveLine(Answer):
    """A log-det curve in nats; `rank` counts picks from 1."""

    selected: int
    rank: list[int]
    log_det: list[float]
    marginal_gains: list[float]
    runs: int = 1
    log_det_std: list[float] | None = None


class Curve(CurveLine):
    """The curve of a job's selection, with those of its baselines."""

    job_id: UUID
    baselines: dict[str, CurveLine]

    def _repr_html_(self) -> str:
        lines = {"picks": (self.rank, self.log_det)}
        lines |= {name: (one.rank, one.log_det) for name, one in self.baselines.items()}
        return curves_html(f"{self.selected:,} picks of job {self.job_id}", lines)


class Histogram(Answer):
    """Counts between edges; one edge more than counts."""

    edges: list[float]
    counts: list[int]


class ConflictStatistics(Answer):
    """Conflict of each pick with the picks before it, in [0, 1]."""

    mean: float
    max: float
    positive_fraction: float
    quantiles: dict[str, float]
    histogram: Histogram
    spearman_conflict_gain: float | None = None
    spearman_conflict_epsilon: float | None = None


class ProofVerdict(Answer):
    """What training on the picks of a method came to in a proof: the method minus `against`."""

    proof_id: UUID
    metric: str
    against: str
    difference: float | None = None
    interval: tuple[float, float] | None = None
    verdict: str


class LeagueLine(LeagueRow):
    """A method in the league table; `requested` is the job's own."""

    requested: bool
    verdicts: list[ProofVerdict] = []


class League(Answer):
    """The methods of a job side by side, that of the largest log-det first."""

    job_id: UUID
    methods: list[LeagueLine]


class Conflicts(ConflictStatistics):
    """The conflict statistics of a job's selection, with those of its baselines."""

    job_id: UUID
    baselines: dict[str, ConflictStatistics]


class RejectedReason(Answer):
    """All rows that could not be used, for one reason."""

    reason: str
    rows: list[int]


class RejectedRows(Answer):
    """All rows that could not be used."""

    job_id: UUID
    rejected: list[RejectedReason]
    filtered: list[RejectedReason] = []


class Message(Answer):
    """A turn."""

    role: str
    content: str


class Suspect(Answer):
    """A row that may be wrong: the figures that say so, whether it was picked, and its text."""

    rank: int
    index: int
    suspicion: float
    loss: float | None
    norm: float | None
    cosine: float | None
    ifd: float | None
    end_loss: float | None = None
    suspect: bool
    picked: bool
    filtered: str | None
    messages: list[Message]
    cut: bool


class Suspects(Answer):
    """A page of the rows that look most wrong, the worst first."""

    job_id: UUID
    items: list[Suspect]
    searched: int
    listed: int
    next_cursor: str | None


class Seconds(Answer):
    """How long something takes: in about four of five cases between low and high."""

    low: float
    likely: float
    high: float


class EstimatedSeconds(Seconds):
    """The same of a whole job, and of each of its stages."""

    stages: dict[str, Seconds]


class EstimateProblem(Answer):
    """What a job may fail by, as far as a sample of its rows tells."""

    field: str
    message: str


class Estimate(Answer):
    """What a job would take. While `state` is queued or running, nothing else is there."""

    id: UUID
    state: State
    rows: int | None = None
    rows_rejected: int | None = None
    rows_sampled: int | None = None
    tokens: int | None = None
    gradient_rows: int | None = None
    gradient_tokens: int | None = None
    rows_overlapping: int | None = None
    selected: int | None = None
    seconds: EstimatedSeconds | None = None
    bytes: int | None = None
    memory_bytes: int | None = None
    device: str | None = None
    workers: int | None = None
    basis: str | None = None
    problems: list[EstimateProblem] | None = None
