"""The result of a job, as publishing writes it and clients read it."""

from __future__ import annotations

import uuid
from typing import Literal

from pydantic import Field

from app.core.contracts.dataset_request import Columns
from app.core.contracts.schedule import ScheduleFound
from app.core.contracts.schema import Response
from app.core.contracts.selection_request import Clip
from app.core.uris.datasets import Format


class Rejected(Response):
    """Rows that could not be used, for one reason."""

    reason: str
    count: int
    rows: list[int] = Field(description="Their row numbers; the first 100. `GET /jobs/{id}/rejected` has all.")
    message: str | None = Field(default=None, description="What is known of the first, as in the template's own words.")


class DatasetFile(Response):
    """One file of a dataset of many."""

    uri: str
    first_row: int = Field(description="Number of its first row in the dataset.")
    rows: int


class Certificate(Response):
    """What is proven about the subset."""

    value: float = Field(description="Lower bound on F(S)/F(S*): no subset of this size has more than 1/value times.")
    optimum_upper_bound: float = Field(description="No subset of this size has a larger log-det, in nats.")
    additive_bound: float | None = Field(
        description="Upper bound on F(S*) known before the fact, F(S)/(1 - (1 - 1/k)^k) + k conflict_penalty and some "
        "millionths for ties, in nats; null for methods without it."
    )
    curvature: float | None = Field(description="c in [0, 1]; null where it was not asked for.")
    curvature_factor: float | None = Field(description="(1 - e^-c)/c, a-priori factor for conflict_penalty 0.")
    epsilon_bound_violations: int = Field(description="Must be 0: fact 4 of the method, checked on each pick.")


class Baseline(Response):
    """Another method on the same sketches, with as many picks; numbers are means over its runs."""

    runs: int = Field(default=1, description="1, or `selection.baseline_repeats` for a method that draws at random.")
    log_det: float = Field(description="In nats.")
    log_det_std: float = Field(default=0.0, description="Standard deviation over the runs, with n - 1.")
    mean_conflict: float
    overlap: float = Field(description="Jaccard index of its picks and the subset's: 1 where they are the same rows.")


class Decontamination(Response):
    """The evaluation set that rows were held against; the rows dropped are in `filtered`, under `decontaminate`."""

    rows: int = Field(description="Rows of the evaluation set.")
    short: int = Field(description="Of those, rows without a run of so many words: they find nothing.")
    runs: int = Field(description="Runs of words in it.")
    fingerprint: str


class LeagueRow(Response):
    """One method of a job beside the others; of a method that draws at random, means over its runs."""

    method: str
    runs: int = Field(description="1, or `selection.baseline_repeats` for a method that draws at random.")
    rows: float = Field(description="Rows picked.")
    tokens: float = Field(description="Tokens that training on them reads, once.")
    log_det: float = Field(description="In nats, of what was selected from.")
    mean_conflict: float
    overlap: float = Field(description="Jaccard index of its picks and the subset's; 1 for the subset itself.")
    target_covered: float | None = Field(
        default=None, description="Information in the directions of the target's gradients, in nats; null without one."
    )
    target_cosine: float | None = Field(
        default=None, description="Mean cosine of the picks with the target's mean direction; null without one."
    )
    sources: dict[str, float] = Field(
        default={}, description="Share of the picks by source: the largest sources; empty without a source column."
    )


class PartitionsGuarantee(Response):
    """What a partitioned selection promises over the random draw of the parts: E F(S) >= factor F(S*) - loss."""

    factor: float = Field(description="(1 - (1 - 1/k)^k) / 2.")
    loss: float = Field(description="(1 - (1 - 1/k)^k) k conflict_penalty, in nats.")


class GradientsComputed(Response):
    """Whose gradients were computed for a job."""

    computed: int = Field(description="Rows whose gradients were computed for this job.")
    reused: int = Field(description="Rows whose sketches were there, or which another job computed meanwhile.")


class SuspectsCounted(Response):
    """Rows that look wrong; the rows themselves are at `links.suspects`."""

    rows: int = Field(description="Usable rows that look wrong.")
    picked: int = Field(description="Of these, how many were picked all the same.")
    listed: int = Field(description="Rows that `GET /jobs/{id}/suspects` lists.")


class Limited(Response):
    """What kept a job from scoring all rows: a limit of its request."""

    limit: Literal["gradient_tokens", "seconds"] = Field(description="Which of `limits` it was.")
    value: float = Field(description="As it was asked for.")
    used: float = Field(description="How much was used when the job stopped; up to a shard more than `value`.")
    rows_scored: int = Field(description="Usable rows with a gradient: those that were selected from.")
    rows_not_scored: int = Field(description="Usable rows without.")


class SourcePicked(Response):
    """Rows of one source among the picks, with the limits in rows that they were picked within."""

    least: int
    most: int
    picked: int
    candidates: int = Field(description="Rows of the source that could be picked.")


class ConstraintCost(Response):
    """One constraint by itself, as if it were the only one."""

    log_det_lost: float = Field(
        description="Log-det of the unconstrained greedy less that of the greedy under this constraint alone, of as "
        "many rows, in nats."
    )
    certificate: float = Field(description="Proven share of the best subset that this constraint allows.")
    kept_out: int = Field(description="Picks of the unconstrained greedy that it has not.")


class ConstraintsMet(Response):
    """What the constraints came to."""

    log_det_lost: float | None = Field(
        description="Log-det of the unconstrained greedy of as many rows less that of the subset, in nats: what all "
        "constraints together cost. Null with a schedule, where that is not measured: other picks train another model."
    )
    kept_out: dict[str, int] = Field(
        description="Picks of the unconstrained greedy that are not in the subset, by what keeps them out: `exclude`, "
        "`sources`, `tokens`, `near_duplicates`, or `displaced` where they would be allowed and others came first. "
        "Empty with a schedule."
    )
    each: dict[str, ConstraintCost] = Field(
        description="Each by itself; one that can't be met without the others, not. Empty with a schedule."
    )
    rows: dict[str, int] = Field(
        default={}, description="Candidates that have to be picked, `include`, and that may not be, `exclude`."
    )
    sources: dict[str, SourcePicked] = Field(description="By source; empty without limits by source.")


class GroupReached(Response):
    """How far the picks reach towards one group of a purpose's rows."""

    rows: int = Field(description="Rows of the group that have a gradient.")
    covered: float = Field(description="Log-det of the picks in the directions of the group's gradients, in nats.")
    covered_per_direction: float = Field(description="That by the number of these directions.")
    cosine: float = Field(description="Mean cosine of the picks with the group's mean direction.")


class Reached(Response):
    """How far the picks reach towards rows that stand for what they are for, or for what they must not harm."""

    rows: int = Field(description="Rows of that dataset.")
    sketched: int = Field(description="Rows of it whose gradients are finite and not zero.")
    unusable: dict[str, int] = Field(description="Rows of it that could not be used, by reason.")
    gradients: GradientsComputed
    fingerprint: str
    sketches: str = Field(description="Content key of its gradient sketches.")
    directions: int = Field(description="Directions that its gradients span.")
    covered: float = Field(description="Log-det of the picks in these directions, in nats.")
    covered_random: float = Field(description="The same of as many random rows, the mean of five draws.")
    cosine: float = Field(description="Mean cosine of the picks with the mean direction of its rows.")
    cosine_random: float = Field(description="The same of random rows, which is that of all candidates.")
    groups: dict[str, GroupReached] = Field(description="By the values of `group_column`; empty without it.")
    worst_group: str | None = Field(description="The group that is covered least by direction; null without groups.")


class SweepPoint(Response):
    """What one combination of settings gives. Log-dets at another alpha or at other lengths are on another scale."""

    conflict_penalty: float
    early_stop_ratio: float | None
    alpha: float = Field(description="The number behind `auto`.")
    normalize: Literal["none", "clip", "unit"] | Clip
    selected: int
    log_det: float = Field(description="In nats, at this alpha and these lengths.")
    mean_conflict: float
    certificate: float
    shared: float = Field(description="Jaccard index of its picks and the subset's: 1 where they are the same rows.")
    lacking: str | None = Field(description="What of the constraints it does not meet; null if it meets all.")


class StabilityFound(Response):
    """How sure the picks are; each pick's own share is in the subset, that of every row in the scores."""

    sketches: int = Field(description="Selections made again from other random projections.")
    bootstrap: int = Field(description="Selections made again from resampled pools.")
    impossible: int = Field(description="Of those, pools that could not meet the constraints; they count nowhere.")
    mean: float | None = Field(description="Mean share of the reselections that pick a pick.")
    smallest: float | None = Field(description="The smallest of these shares.")
    always: int = Field(description="Picks that each reselection picked, of those that had them as candidates.")


class Extension(Response):
    """What a job added to the picks of an earlier job. Log-dets are of this job's gradients, lengths and alpha."""

    job: uuid.UUID = Field(description="The job that was extended.")
    rows_kept: int = Field(description="Its picks that are in this dataset: the first of this subset, in their order.")
    rows_added: int = Field(description="Picks after them.")
    rows_gone: int = Field(
        description="Its picks that are not: rows that were deleted or edited, or can't be used any more."
    )
    gone: list[int] = Field(description="Their row numbers in that job's dataset, as they were picked; 100 at most.")
    log_det_before: float = Field(description="Information of the picks that are kept, in nats.")
    log_det_after: float = Field(description="Of all picks, in nats.")
    log_det_gained: float = Field(description="The difference, in nats.")


class JobResult(Response):
    """Numbers of a succeeded job; the picks are at `links.subset`."""

    rows_total: int
    rows_usable: int
    selected: int
    truncated: int = Field(description="Usable rows whose end was cut off at max_length.")
    rejected: list[Rejected]
    ignored_columns: dict[str, int] = Field(
        default={},
        description="Fields that rows have and nothing read, neither the chat template nor the selection, with the "
        "number of rows. At most 100 are named, the first by name; `(further fields)` is the sum over the others. "
        "Normally empty.",
    )
    files: list[DatasetFile] | None = Field(
        default=None, description="The files of a dataset of many, in the order of their rows; null for one."
    )
    normalize: Literal["none", "clip", "unit"] | Clip = Field(
        description="How long gradients were when they were selected from; log-det, certificate, curves and "
        "statistics are of gradients at these lengths."
    )
    representative: float = Field(
        default=0.0,
        description="How much more information counted in the directions of the candidates' own gradients; log-det, "
        "certificate, curves and statistics are under this metric. 0 for results of old, and with a target.",
    )
    filtered: dict[str, int] = Field(
        description="Usable rows that a filter kept from being picked, by filter and bound. Their numbers are at "
        "`GET /jobs/{id}/rejected`."
    )
    suspects: SuspectsCounted
    tokens: int = Field(description="Of all usable rows.")
    tokens_selected: int | None = Field(
        default=None, description="Tokens that training on the picks reads once. Null for results of old."
    )
    constraints: ConstraintsMet | None = Field(default=None, description="Null where nothing was constrained.")
    extension: Extension | None = Field(default=None, description="Null where no job was extended.")
    target: Reached | None = None
    protect: Reached | None = None
    sweep: list[SweepPoint] | None = Field(default=None, description="Curves are at `GET /jobs/{id}/statistics`.")
    stability: StabilityFound | None = None
    log_det: float = Field(description="Information of the subset, in nats.")
    alpha: float
    stop_reason: Literal["budget", "early_stop", "exhausted"]
    certificate: Certificate
    partitions: int | None = Field(default=None, description="Random parts of the selection; null where it was one.")
    partitions_guarantee: PartitionsGuarantee | None = Field(
        default=None,
        description="Null also with an early stop, constraints, a token budget, or rows that pull against a target or "
        "what is protected: of these nothing is proven beforehand.",
    )
    mean_conflict: float
    format: Format = Field(description="Of the dataset, and so of `subset?rows=true`.")
    columns: Columns | None = Field(default=None, description="Which columns were read; null for results of old.")
    fingerprint: str
    model_revision: str
    sketches: str = Field(description="Content key of the gradient sketches.")
    sketches_reused: bool = Field(description="Whether an earlier job had computed them.")
    left_out: list[str] | None = Field(
        default=None,
        description="Layers and parts of the model's blocks that no gradient was taken of although they have weights: "
        "convolutions, state-space parameters, routers, experts that were not asked for, layers that are never called; "
        "and what the model's files hold besides, such as blocks that its configuration does not count. `*` stands for "
        "every block's number. Null for results of old.",
    )
    weights_stored_as: str | None = Field(
        default=None, description="Format of quantised weights, such as `nf4`; null where they are plain numbers."
    )
    gradients: GradientsComputed | None = Field(default=None, description="Null for results of old.")
    schedule: ScheduleFound | None = Field(
        default=None,
        description="What the schedule came to; null without one. Curves are at `GET /jobs/{id}/statistics`. Log-det, "
        "certificate and conflicts of the result are those of all picks together, over the gradients that they were "
        "picked by.",
    )
    limited: Limited | None = Field(default=None, description="Null where all usable rows were scored.")
    seconds: dict[str, float] = Field(description="Time of each stage.")
    baselines: dict[str, Baseline] = Field(description="What each baseline came to with as many picks.")
    baselines_left_out: dict[str, str] = Field(
        default={}, description="Baselines that have no picks, and why: constraints, or no row with what they rank by."
    )
    decontamination: Decontamination | None = Field(
        default=None, description="Null without `constraints.decontaminate`."
    )
    league: list[LeagueRow] = Field(
        default=[],
        description="The method and its baselines side by side, by log-det; `GET /jobs/{id}/league` has what proofs of "
        "the job say of them too. Empty for results of old.",
    )
    versions: dict[str, str]
