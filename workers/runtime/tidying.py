"""Between tasks: keep this machine's cache within its limits, and clear what killed workers left in it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from app.core.lifecycle.sketch_use import live_corpora
from workers.data.cache_limits import shrink_cache
from workers.data.leftovers import remove_leftovers

if TYPE_CHECKING:
    from workers.runtime.context import WorkerContext

logger = logging.getLogger(__name__)


def tidy(context: WorkerContext) -> None:
    """Tidy once. An error is logged and does not stop the worker. Workers tidy the cache of their own machine."""
    try:
        leftovers = remove_leftovers(context.settings)
        with context.sessions() as session:
            fingerprints, digests = live_corpora(session)
        removed = shrink_cache(context.settings, fingerprints, digests)
    except (OSError, SQLAlchemyError) as error:
        logger.warning("the cache could not be tidied, it is tried again: %s", error)
        return
    if leftovers or removed:
        logger.info("tidied the cache: %d leftovers, %s", leftovers, [path.name for path in removed])
