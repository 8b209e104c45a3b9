"""What one worker process holds: settings, connections, the device, what is in memory, the wish to stop."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import torch

from app.artifacts import open_artifacts
from app.db.engine import make_engine, make_sessions
from app.queue import TaskQueue
from app.settings import get_settings
from workers.data.holds import Holds
from workers.gradients.device import resolve_device
from workers.gradients.engine import GradientEngine
from workers.gradients.model import ModelCache
from workers.gradients.tokenizer import TokenizerCache
from workers.models.fetch import limits_of

if TYPE_CHECKING:
    from pathlib import Path

    from app.artifacts import ArtifactStore
    from app.db.engine import Sessions
    from app.settings import Settings
    from workers.data.corpus import Corpus
    from workers.gradients.config import GradientConfig
    from workers.gradients.model import ProxyModel


@dataclass(slots=True)
class Process:
    """Shared by all tasks that this process runs, one after the other.

    What was loaded last stays: the shards of a job follow one another, and a model takes seconds to load.
    """

    settings: Settings
    sessions: Sessions
    queue: TaskQueue
    artifacts: ArtifactStore
    device: torch.device
    models: ModelCache = field(default_factory=ModelCache)
    tokenizers: TokenizerCache = field(default_factory=TokenizerCache)
    corpus: Corpus | None = None
    holds: Holds = field(default_factory=Holds)
    stopping: threading.Event = field(default_factory=threading.Event)
    _engine: GradientEngine | None = None
    _engine_model: ProxyModel | None = None
    _engine_source: tuple[Path, str] | None = None

    @property
    def name(self) -> str:
        """This worker, as clients see it."""
        return f"{socket.gethostname()}:{os.getpid()}"

    def engine(self, path: Path, dtype: str, config: GradientConfig) -> tuple[ProxyModel, GradientEngine]:
        """A model and an engine for it, the last ones if they serve.

        Raises:
            ModelError: The model can't be used.
        """
        if self._engine_source != (path, dtype):
            self._engine = self._engine_model = None  # the engine keeps its model alive, and two may not fit
        model = self.models.get(path, dtype=dtype, device=self.device)
        if self._engine is None or self._engine_model is not model or self._engine.config != config:
            self._engine = None
            self._engine, self._engine_model, self._engine_source = GradientEngine(model, config), model, (path, dtype)
        return model, self._engine


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
        artifacts=open_artifacts(settings),
        device=resolve_device(settings.device),
        models=ModelCache(limits_of(settings)),
        tokenizers=TokenizerCache(limits_of(settings)),
    )


@cache
def current_process() -> Process:
    """This process's resources, made at the first call."""
    return make_process(get_settings())
