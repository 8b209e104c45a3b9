"""A result in plain words: what was picked, and what is proven about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.core.contracts.job_result import Certificate, JobResult

NO_DIFFERENCE = 0.005
"""A share below which two methods count as equal: it would be written as 0%."""

STOPPED = {
    "budget": "The budget is used up.",
    "early_stop": "The selection stopped before its budget: the next pick would have added too little.",
    "exhausted": "The selection stopped before its budget: no row that is left adds anything, or may be picked.",
}


def summary(result: JobResult) -> list[str]:
    """The result in sentences, each a paragraph."""
    held = "is picked. It holds" if result.selected == 1 else "are picked. Together they hold"
    picked = (
        f"{result.selected:,} of {_rows(result.rows_usable, 'usable ')} {held} "
        f"{result.log_det:.4g} nats of information. {STOPPED[result.stop_reason]}"
    )
    left_out = result.rows_total - result.rows_usable
    if left_out:
        reasons = ", ".join(f"{one.count:,} {one.reason.replace('_', ' ')}" for one in result.rejected)
        picked += f" {_rows(left_out)} could not be used: {reasons}."
    if result.ignored_columns:
        fields = ", ".join(f"{name} ({_rows(rows)})" for name, rows in result.ignored_columns.items())
        picked += f" Nothing reads these fields of the rows: {fields}."
    if result.tokens_selected is not None:
        picked += f" Training on the picks reads {result.tokens_selected:,} tokens once."
    added = result.extension
    if added is not None:
        picked += (
            f" {added.rows_kept:,} of the picks are kept from job {added.job}; the {added.rows_added:,} that "
            f"were added gain {added.log_det_gained:.4g} nats."
        )
        if added.rows_gone:
            picked += f" {added.rows_gone:,} picks of that job are not in this dataset any more."
    return [
        picked,
        *_doubts(result),
        *certificate_words(result.certificate, result.selected),
        *_constraints(result),
        *_purposes(result),
        *_sureness(result),
        *_baselines(result),
    ]


def _constraints(result: JobResult) -> list[str]:
    """What the constraints cost, each and together."""
    met = result.constraints
    if met is None:
        return []
    if met.log_det_lost is None:
        return [
            "What the constraints cost is not measured: with a schedule other picks would have trained another model."
        ]
    words = (
        f"The constraints cost {met.log_det_lost:.4g} nats against as many rows that are picked without them; the "
        "proof above is about the best subset that they allow."
    )
    kept = ", ".join(f"{count:,} by {reason.replace('_', ' ')}" for reason, count in met.kept_out.items())
    if kept:
        words += f" They kept out of it: {kept}."
    if len(met.each) > 1:
        each = ", ".join(f"{name.replace('_', ' ')} {one.log_det_lost:.4g}" for name, one in met.each.items())
        words += f" Each by itself costs, in nats: {each}."
    return [words]


def _purposes(result: JobResult) -> list[str]:
    """How far the picks reach towards the target and what is protected."""
    words = []
    for name, one in (("the target", result.target), ("what is protected", result.protect)):
        if one is None:
            continue
        sentence = (
            f"Towards {name} ({_rows(one.rows)}) the picks hold {one.covered:.4g} nats in the directions of its "
            f"gradients, random rows {one.covered_random:.4g}; their mean cosine with it is {one.cosine:.3f}, that of "
            f"random rows {one.cosine_random:.3f}."
        )
        if one.worst_group is not None:
            group = one.groups[one.worst_group]
            sentence += (
                f" Of its {len(one.groups):,} groups {one.worst_group} is covered least: "
                f"{group.covered_per_direction:.3g} nats a direction."
            )
        words.append(sentence)
    return words


def _sureness(result: JobResult) -> list[str]:
    """How sure the picks are."""
    found = result.stability
    if found is None or found.mean is None:
        return []
    words = (
        f"Selected again from {found.sketches:,} other sketches and {found.bootstrap:,} resampled pools, a pick is "
        f"picked {found.mean:.0%} of the times on average; {found.always:,} of {result.selected:,} are picked always."
    )
    return [words]


def _doubts(result: JobResult) -> list[str]:
    """What was kept from being picked, and what looks wrong all the same."""
    filtered, doubtful = sum(result.filtered.values()), result.suspects.rows
    words = []
    if filtered:
        were = "was" if filtered == 1 else "were"
        words.append(f"{_rows(filtered, 'usable ')} {were} kept from being picked by the filters.")
    if doubtful:
        look = "looks" if doubtful == 1 else "look"
        words.append(
            f"{_rows(doubtful, 'usable ')} {look} wrong, {result.suspects.picked:,} of them picked: see the list of "
            "suspects."
        )
    return [" ".join(words)] if words else []


def _rows(count: int, kind: str = "") -> str:
    return f"1 {kind}row" if count == 1 else f"{count:,} {kind}rows"


def certificate_words(certificate: Certificate, selected: int) -> list[str]:
    """What is proven, without a formula."""
    others = "row by itself holds" if selected == 1 else f"{selected:,} of these rows hold"
    words = (
        f"No {others} more than {certificate.optimum_upper_bound:.4g} nats, so this subset is "
        f"proven to have at least {certificate.value:.1%} of what the best subset of its size has. The proof is of "
        "this very result, not of the method in general: it adds up the largest gains that were left on the table. "
        "The true share lies between that figure and 100%."
    )
    if certificate.curvature_factor is not None:
        words += (
            f" The curvature of these rows, {certificate.curvature:.2f}, proves at least "
            f"{certificate.curvature_factor:.1%} before a row is picked."
        )
    if certificate.epsilon_bound_violations:
        words += (
            f" Beware: {certificate.epsilon_bound_violations:,} picks break a bound that always holds. "
            "That is a fault of the service; please report it."
        )
    return [words]


def _baselines(result: JobResult) -> list[str]:
    left_out = [f"{method} is left out of the comparison: {why}." for method, why in result.baselines_left_out.items()]
    if not result.baselines:
        return left_out
    parts = []
    for name, one in sorted(result.baselines.items(), key=lambda item: -item[1].log_det):
        more = (result.log_det / one.log_det - 1) if one.log_det > 0 else 0.0
        beside = f"{abs(more):.0%} {'more' if more > 0 else 'less'} than {name}"
        if abs(more) < NO_DIFFERENCE:
            beside = f"as much as {name}"
        bars = f" \N{PLUS-MINUS SIGN} {one.log_det_std:.2g}" if one.runs > 1 else ""
        parts.append(f"{beside} ({one.log_det:.4g}{bars} nats, {one.overlap:.0%} of the rows in common)")
    return [f"With as many picks it holds {'; '.join(parts)}.", *left_out]
