"""What a long unit of work gives way to."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any, cast

from app.core.lifecycle.turns import Turn
from workers.runtime.giving_way import others_wait


def test_what_came_in_between_gives_way_to_the_selection_that_stands_still() -> None:
    """Without a look at Postgres: who stands still is not queued there."""
    context = SimpleNamespace(standing_still=1)
    assert others_wait(cast("Any", context), Turn(uuid.uuid4(), 0))
