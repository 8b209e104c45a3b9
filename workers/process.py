"""What one worker process holds: settings, connections, the device, the model in memory, the wish to stop."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import torch

from app.db.engine import make_engine, make_sessions
from app.queue import TaskQueue
from app.settings import get_settings
from workers.gradients.device import resolve_device
from workers.gradients.model import ModelCache

if TYPE_CHECKING:
    from app.db.engine import Sessions
    from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Process:
    """Shared by all tasks that this process runs, one after the other."""

    settings: Settings
    sessions: Sessions
    queue: TaskQueue
    device: torch.device
    models: ModelCache = field(default_factory=ModelCache)
    stopping: threading.Event = field(default_factory=threading.Event)


def make_process(settings: Settings) -> Process:
    """Resources by settings.

    Raises:
        ModelError: `SPICE_DEVICE` names a device that this machine does not have.
    """
    if settings.torch_threads is not None:
        torch.set_num_threads(settings.torch_threads)
    return Process(
        settings=settings,
        sessions=make_sessions(make_engine(settings)),
        queue=TaskQueue(settings),
        device=resolve_device(settings.device),
    )


@cache
def current_process() -> Process:
    """This process's resources, made at the first call."""
    return make_process(get_settings())
