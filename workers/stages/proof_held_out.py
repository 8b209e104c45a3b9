"""What a proof holds out, and the pool that is left: the rows that models are scored on are never trained on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from app.core.contracts.proof_request import Choice, ProofRequest
from app.core.db.tables import ProofStage
from workers.data.errors import DatasetError
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

    from numpy.typing import NDArray

    from app.core.contracts.dataset_request import DatasetRef
    from app.core.contracts.model_request import ModelRef
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
        proxy: The model that is trained: rows are read with its chat template, up to its `max_length`.
    """

    context: WorkerContext
    heartbeat: LeaseHeartbeat
    request: ProofRequest
    proxy: ModelRef

    def split(self, source: Source) -> tuple[Split, Reading]:
        """Read the pool of a proof's job and what is held out of it, or beside it.

        Raises:
            JobError: The held-out dataset is gone, or no held-out row has what a metric needs.
            Stopped: The proof was cancelled or lost.
        """
        held, settings = self.request.held_out, self.context.settings
        apart = None
        if held.dataset is not None:
            apart = self._beside(source, held.dataset)
        reading = self._read(source)
        scored, corpus = reading if apart is None else apart, reading.corpus
        chosen = self._drawn(len(corpus)) if apart is None else np.arange(len(apart.corpus))
        dataset = source.request.dataset if held.dataset is None else held.dataset
        named = source_column(scored.snapshot, settings, dataset.source_column)
        facts, texts = self._facts(scored, chosen, named)
        if apart is not None:
            stop = self.heartbeat.should_stop
            pool_rows = row_facts(reading.snapshot, corpus.shape, corpus.wanted, settings, should_stop=stop)
            texts = {fact.row: fact.text for fact in pool_rows}
        held_texts = {fact.text for fact in facts if fact is not None}
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
        rows = [scored.corpus[int(place)] for place in chosen]
        with_options, not_scored = self._with_options(rows, facts, scored)
        known = None if named is None else [str(None if fact is None else fact.source) for fact in facts]
        clusters = clusters_of(known, len(rows))
        count = int(clusters.max()) + 1 if len(clusters) else 0
        sources = count if count < len(rows) else None
        return Split(pool, replace(with_options, clusters=clusters), len(equal), sources, not_scored), reading

    @property
    def _options(self) -> str | None:
        """The column of the options that a metric chooses from; None where no metric does."""
        return next((metric.options for metric in self.request.metrics if isinstance(metric, Choice)), None)

    def _drawn(self, samples: int) -> NDArray[np.int64]:
        """The places of a share of the samples, in order; others for another seed."""
        held = self.request.held_out
        count = max(1, round((held.fraction or 0) * samples))
        return np.sort(random_permutation(samples, seed=held.seed, role="proof/held_out", layer="")[:count])

    def _facts(
        self, reading: Reading, chosen: NDArray[np.int64], source_column: str | None
    ) -> tuple[list[RowFacts | None], dict[int, bytes]]:
        """What each chosen sample's row says, None where it is not there; and the text of every other row, by row."""
        settings, options = self.context.settings, self._options
        wanted = {int(reading.corpus.rows[place]) for place in chosen}
        found: dict[int, RowFacts] = {}
        texts: dict[int, bytes] = {}
        for fact in row_facts(
            reading.snapshot,
            reading.corpus.shape,
            reading.corpus.wanted,
            settings,
            source_column=source_column,
            options_column=options if options in read_columns(reading.snapshot, settings) else None,
            should_stop=self.heartbeat.should_stop,
        ):
            if fact.row in wanted:
                found[fact.row] = fact
            else:
                texts[fact.row] = fact.text
        return [found.get(int(reading.corpus.rows[place])) for place in chosen], texts

    def _with_options(
        self, rows: Sequence[Sample], facts: Sequence[RowFacts | None], reading: Reading
    ) -> tuple[HeldOutRows, dict[str, int]]:
        """The held-out rows with the tokens of their options; and how many rows have none, by metric."""
        nothing, options = np.empty(0, dtype=np.int64), self._options
        if options is None:
            return HeldOutRows(rows, nothing, [], nothing, np.empty(0, dtype=np.bool_)), {}
        encoder = ConversationEncoder(
            reading.model.tokenizer,
            self.proxy.max_length,
            template_limits(self.context.settings),
            self.proxy.chat_template,
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

    def _beside(self, source: Source, wanted: DatasetRef) -> Reading:
        """Read held-out rows of their own; raises JobError where they can't be used."""
        field = "held_out.dataset"
        try:
            return self._read(source_beside(self.context, self.heartbeat.lease.id, source, wanted, field, None))
        except DatasetError as error:
            kind = f"dataset-{error.reason_code.replace('_', '-')}"
            raise JobError(kind, "The held-out rows can't be used", field, error.message) from error

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
