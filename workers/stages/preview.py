"""Show rows of a dataset as a model will read them: its own chat template, its own tokens, where the loss falls."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from app.core.contracts.job_request import PreviewRequest
from app.core.db.tables import Dataset, Preview, State
from app.core.lifecycle import leases
from app.core.uris.datasets import check_uris
from app.core.uris.models import check_model_uri
from workers.data.conversation import Wanted, to_conversation
from workers.data.corpus import shape_for
from workers.data.formats import BadRecord, iter_records, read_columns, storable
from workers.data.rejection import Reason, Refusal
from workers.data.stopping import Stopped
from workers.data.template_server import template_limits
from workers.data.tokenisation import ConversationEncoder
from workers.runtime.context import current_context
from workers.runtime.failures import understood
from workers.runtime.task import run_leased
from workers.stages.reading import dataset_snapshot, model_directory

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.core.db.tables import Json
    from app.core.settings import Settings
    from spice_rows.shape import Shape
    from workers.data.fetch import Snapshot
    from workers.data.formats import Record
    from workers.runtime.context import WorkerContext
    from workers.runtime.heartbeat import LeaseHeartbeat

TOKENS_SHOWN = 1024
"""Most tokens of a row that are stored; further tokens are counted."""

TEXT_SHOWN = 16_384
"""Characters of a row that are stored, likewise: one token may be long."""


def run_preview(preview_id: str, dispatch: int) -> None:
    """Read some rows, and store their tokens."""
    context = current_context()
    run_leased(context, Preview, preview_id, dispatch, lambda heartbeat: _preview(context, heartbeat))


def _preview(context: WorkerContext, heartbeat: LeaseHeartbeat) -> None:
    with context.sessions() as session:
        preview = session.get_one(Preview, heartbeat.lease.id)
        dataset = session.get_one(Dataset, preview.dataset_id)
    wanted = understood(PreviewRequest, preview.request)
    uri = check_uris(dataset.every_uri, context.settings, dataset.format)
    model_uri = check_model_uri(wanted.model.uri, context.settings)
    model = context.tokenizers.get(model_directory(context, model_uri, wanted.model.dtype, heartbeat.should_stop))
    snapshot = dataset_snapshot(context, uri, dataset.fingerprint, recalled=True, should_stop=heartbeat.should_stop)
    columns = None if wanted.columns is None else wanted.columns.model_dump(exclude_none=True)
    learned = Wanted(wanted.train_on, wanted.preference)
    shape = shape_for(read_columns(snapshot, context.settings), columns, learned)
    encoder = ConversationEncoder(
        model.tokenizer, wanted.model.max_length, template_limits(context.settings), wanted.model.chat_template
    )
    records = _records(snapshot, shape, wanted, context.settings, heartbeat.should_stop)
    content: Json = {"shape": shape.name, "rows": [_shown(record, shape, learned, encoder) for record in records]}
    with context.sessions() as session:
        leases.finish(session, heartbeat.lease, State.SUCCEEDED, content=content)
        session.commit()


def _records(
    snapshot: Snapshot, shape: Shape, wanted: PreviewRequest, settings: Settings, should_stop: Callable[[], bool]
) -> list[Record | BadRecord]:
    records = iter_records(snapshot, settings, frozenset(shape.columns.values()))
    for _ in islice(records, wanted.first_row):
        if should_stop():
            raise Stopped
    return list(islice(records, wanted.rows))


def _shown(record: Record | BadRecord, shape: Shape, wanted: Wanted, encoder: ConversationEncoder) -> dict[str, Any]:
    """A row for the client: its first tokens as text, each learned or not; or why it can't be used."""
    found = record.reason if isinstance(record, BadRecord) else to_conversation(record.values, shape, wanted)
    spelled = Refusal(found) if isinstance(found, Reason) else encoder.spell(found)
    if isinstance(spelled, Refusal):
        return {"row": record.row, "rejected": str(spelled.reason), "message": storable(spelled.said) or None}
    encoded, pieces = spelled
    ignored = encoded.ignored if isinstance(found, Reason) else found.ignored.union(encoded.ignored)
    shown, characters = 0, 0
    for piece in pieces[:TOKENS_SHOWN]:
        characters += len(piece)
        if characters > TEXT_SHOWN:
            break
        shown += 1
    return {
        "row": record.row,
        "rejected": None,
        "tokens": len(pieces),
        # The first token has nothing before it to be told from, so it carries no loss.
        "learned_tokens": int(encoded.loss_mask[1:].sum()),
        "truncated": encoded.truncated,
        "pieces": [storable(piece) for piece in pieces[:shown]],
        "learned": [place > 0 and bool(learned) for place, learned in enumerate(encoded.loss_mask[:shown])],
        "ignored": sorted(map(storable, ignored)),
    }
