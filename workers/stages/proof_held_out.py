"""What a proof holds out, and the pool that is left: the rows that models are scored on are never trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from app.core.contracts.proof_request import Choice, ProofRequest
from app.core.db.tables import ProofStage
from workers.data.formats import read_columns
from workers.data.row_facts import row_facts
from workers.data.samples import Sample
from workers.data.sources import source_column
from workers.data.template_server import template_limits
from workers.data.tokenisation import ConversationEncoder, Encoded
from workers.runtime.failures import JobError
from workers.selection.seeds import random_permutation
from workers.stages.proof_arms import Pool
from workers.stages.proof_files import HeldOutRows
from workers.stages.reading import read, source_beside
from workers.statistics.two_level import clusters_of
from workers.training.scoring import last_turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workers.data.row_facts import RowFacts
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat
    from workers.stages.reading import Reading, Source


@dataclass(frozen=True, slots=True)
class Split:
    """A pool and what is held out of it.

    Attributes:
        pool: Without what is held out, and without rows of the same text.
        held_out: What models are scored on.
        duplicates: Rows that were dropped as their text is held out.
        sources: Sources that the bootstrap draws as wholes; None where it draws single rows.
        not_scored: Held-out rows that a metric can't be told of.
    """

    pool: Pool
    held_out: HeldOutRows
    duplicates: int
    sources: int | None
    not_scored: dict[str, int]


@dataclass(frozen=True, slots=True)
class Splitter:
    """Holds rows out for one proof.

    Attributes:
        context: This worker.
        heartbeat: Of the proof's lease.
        request: The proof's.
        max_length: Tokens of a row at most.
    """

    context: WorkerContext
    heartbeat: LeaseHeartbeat
    request: ProofRequest
    max_length: int

    def split(self, source: Source) -> tuple[Split, Reading]:
        """Read the pool of a proof's job and what is held out of it, or beside it.

        Raises:
            JobError: The held-out dataset is gone, or no held-out row has what a metric needs.
            Stopped: The proof was cancelled or lost.
        """
        held = self.request.held_out
        options = next((metric.options for metric in self.request.metrics if isinstance(metric, Choice)), None)
        apart = None
        if held.dataset is not None:
            beside = source_beside(
                self.context, self.heartbeat.lease.id, source, held.dataset, "held_out.dataset", None
            )
            apart = self._read(beside)
        reading = self._read(source)
        settings, corpus = self.context.settings, reading.corpus
        facts_from = reading if apart is None else apart
        sample_of = {int(row): place for place, row in enumerate(facts_from.corpus.rows)}
        if apart is None:
            count = max(1, round((held.fraction or 0) * len(corpus)))
            order = random_permutation(len(corpus), seed=held.seed, role="proof/held_out", layer="")
            chosen = np.sort(order[:count])
        else:
            chosen = np.arange(len(apart.corpus))
        wanted = {int(facts_from.corpus.rows[place]) for place in chosen}
        named = source_column(
            facts_from.snapshot,
            settings,
            (source.request.dataset if held.dataset is None else held.dataset).source_column,
        )
        facts: dict[int, RowFacts] = {}
        texts: dict[int, bytes] = {}
        for fact in row_facts(
            facts_from.snapshot,
            facts_from.corpus.shape,
            settings,
            source_column=named,
            options_column=options if options in read_columns(facts_from.snapshot, settings) else None,
            should_stop=self.heartbeat.should_stop,
        ):
            if fact.row in wanted:
                facts[sample_of[fact.row]] = fact
            elif apart is None:
                texts[fact.row] = fact.text
        if apart is not None:
            pool_rows = row_facts(reading.snapshot, corpus.shape, settings, should_stop=self.heartbeat.should_stop)
            texts = {fact.row: fact.text for fact in pool_rows}
        held_texts = {fact.text for fact in facts.values()}
        equal = np.array(
            [place for place, row in enumerate(corpus.rows) if texts.get(int(row)) in held_texts], dtype=np.int64
        )
        held_places = chosen if apart is None else np.empty(0, dtype=np.int64)
        pool = Pool(
            rows=corpus.rows,
            rows_total=corpus.rows_total,
            lengths=corpus.lengths,
            candidates=np.setdiff1d(np.arange(len(corpus)), np.concatenate([held_places, equal])),
            outside={"held_out": held_places, "duplicate_of_held_out": equal},
        )
        rows = [facts_from.corpus[int(place)] for place in chosen]
        by_place = [facts.get(int(place)) for place in chosen]
        scored, options_missing = self._with_options(rows, by_place, facts_from, options)
        sources = [None if fact is None else fact.source for fact in by_place]
        known = None if named is None else [str(value) for value in sources]
        clusters = clusters_of(known, len(rows))
        held_out = replace(scored, clusters=clusters)
        count = int(clusters.max()) + 1 if len(clusters) else 0
        return Split(pool, held_out, len(equal), count if count < len(rows) else None, options_missing), reading

    def _with_options(
        self, rows: Sequence[Sample], facts: Sequence[RowFacts | None], reading: Reading, options: str | None
    ) -> tuple[HeldOutRows, dict[str, int]]:
        """The held-out rows with the tokens of their options; and how many rows have none, by metric."""
        nothing = np.empty(0, dtype=np.int64)
        if options is None:
            return HeldOutRows(rows, nothing, [], nothing, np.empty(0, dtype=np.bool_)), {}
        encoder = ConversationEncoder(
            reading.model.tokenizer,
            self.max_length,
            template_limits(self.context.settings),
        )
        samples: list[Sample] = []
        items: list[int] = []
        right: list[bool] = []
        for place, (row, fact) in enumerate(zip(rows, facts, strict=True)):
            found = None if fact is None else _options_of(row, fact, encoder)
            if found is not None:
                samples += found[0]
                right += found[1]
                items += [place] * len(found[0])
        missing = len(rows) - len(set(items))
        if missing == len(rows):
            raise JobError(
                "metric-impossible",
                "A metric can't be told of any row",
                "metrics",
                f"choice needs a column {options} that holds a list of texts, one of which is the row's response, and "
                f"none of the {len(rows)} held-out rows has that",
            )
        held = HeldOutRows(rows, nothing, samples, np.array(items, dtype=np.int64), np.array(right, dtype=np.bool_))
        return held, {"choice": missing} if missing else {}

    def _read(self, source: Source) -> Reading:
        meter = self.heartbeat.enter(ProofStage.READING, source.rows, "rows")
        return read(self.context, source, self.heartbeat.should_stop, on_rows=meter.at)


def _options_of(row: Sample, fact: RowFacts, encoder: ConversationEncoder) -> tuple[list[Sample], list[bool]] | None:
    """A row with each of its options as its response, and which is right; None where that can't be told."""
    *before, last = fact.conversation.messages or [{}]
    response = last.get("content")
    if last.get("role") != "assistant" or not isinstance(response, str):
        return None
    right = [option.strip() == response.strip() for option in fact.options or ()]
    if sum(right) != 1:
        return None
    learned = [*([False] * len(before)), True]
    encoded = encoder.encode(
        [
            replace(fact.conversation, messages=[*before, {**last, "content": option}], learned=learned, rejected=None)
            for option in fact.options or ()
        ]
    )
    whole = [one for one in encoded if isinstance(one, Encoded) and not one.truncated]
    if len(whole) < len(encoded):
        return None
    return [_last_turn_alone(Sample(row.row, one.input_ids, one.loss_mask)) for one in whole], right


def _last_turn_alone(sample: Sample) -> Sample:
    before, response = last_turn(sample)
    places = np.arange(sample.tokens)
    inside = (places >= len(before)) & (places < len(before) + len(response))
    return Sample(sample.row, sample.input_ids, inside)
