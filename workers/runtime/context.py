"""What the tasks of one worker process share: settings, connections, device, loaded model, the signal to stop."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Protocol

import torch

from app.core.db.engine import make_engine, make_sessions
from app.core.queue import TaskQueue
from app.core.settings import get_settings
from app.core.storage import open_artifacts
from workers.data.holds import Holds
from workers.gradients.engine import GradientEngine
from workers.gradients.peft_adapter import AdapterCache
from workers.gradients.row_index import PoolRows
from workers.models.device import beside, resolve_device
from workers.models.fetch import limits_of
from workers.models.proxy import ModelCache
from workers.models.tokenizer import TokenizerCache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from app.core.db.engine import Sessions
    from app.core.lifecycle.turns import Turn
    from app.core.settings import Settings
    from app.core.storage import ArtifactStore
    from workers.data.corpus import Corpus
    from workers.gradients.config import GradientConfig
    from workers.gradients.starting_point import StartingPoint
    from workers.models.memory import Work
    from workers.models.proxy import ProxyModel


class TakesTurns(Protocol):
    """Takes one waiting row and works on it."""

    def __call__(self, *, during: Turn | None = None) -> bool:
        """False if none waits that may come in between."""
        ...


@dataclass(slots=True)
class WorkerContext:
    """Shared by all tasks that this process runs, one after the other.

    The model that was loaded last stays in memory: shards of one job follow one another, and loading takes seconds.
    `take_turn` works on one more row, for a task that gives way; `standing_still` tasks do so now.
    """

    settings: Settings
    sessions: Sessions
    queue: TaskQueue
    artifacts: ArtifactStore
    device: torch.device
    models: ModelCache = field(default_factory=ModelCache)
    tokenizers: TokenizerCache = field(default_factory=TokenizerCache)
    adapters: AdapterCache = field(default_factory=AdapterCache)
    corpus: Corpus | None = None
    _pool: tuple[str, PoolRows] | None = None
    holds: Holds = field(default_factory=Holds)
    stopping: threading.Event = field(default_factory=threading.Event)
    take_turn: TakesTurns | None = None
    standing_still: int = 0
    _engine: GradientEngine | None = None
    _engine_model: ProxyModel | None = None
    _engine_source: tuple[Path, str, bool] | None = None
    _engine_key: str | None = None

    @property
    def name(self) -> str:
        """This worker, as clients see it."""
        return f"{socket.gethostname()}:{os.getpid()}"

    def model(self, path: Path, dtype: str, work: Work | None = None, *, spread: bool = False) -> ProxyModel:
        """Load a model, or return the last one if it is the same.

        Args:
            path: Its directory.
            dtype: What it is computed in.
            work: What it is loaded for, for the estimate of memory.
            spread: Whether its blocks go to all GPUs of this machine.

        Raises:
            ModelError: It can't be used.
        """
        source = (path, dtype, spread)
        if self._engine_source != source:
            self._engine = self._engine_model = None  # the engine keeps its model alive, and two may not fit
        further = beside(self.device) if spread else ()
        model = self.models.get(path, dtype=dtype, device=self.device, further=further, work=work)
        if self._engine_model is not model:
            self._engine = None
        self._engine_model, self._engine_source = model, source
        return model

    def engine(
        self, model: ProxyModel, config: GradientConfig, key: str, start: Callable[[], StartingPoint]
    ) -> GradientEngine:
        """Make an engine for the model that `model` returned last, or return the last engine if it is the same.

        Args:
            model: The model.
            config: What to sketch.
            key: Content key of the sketches; what was prepared for one key does not serve another.
            start: Gives what the key's samples are scored from.

        Raises:
            ModelError: The model can't be used.
        """
        serves = self._engine is not None and self._engine.config == config
        if self._engine is None or not serves or (config.prepared and self._engine_key != key):
            self._engine = None
            self._engine, self._engine_key = GradientEngine(model, config, start()), key
        return self._engine

    def pool_of(self, corpus: Corpus) -> PoolRows:
        """The rows of a corpus as the index takes them; those of the last corpus are kept, as sorting takes seconds."""
        if self._pool is None or self._pool[0] != corpus.digest:
            self._pool = corpus.digest, PoolRows.of(corpus.digests)
        return self._pool[1]

    def free_memory(self) -> None:
        """Return unused device memory to other processes; torch would keep it."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def make_context(settings: Settings) -> WorkerContext:
    """Resources by settings.

    Raises:
        ModelError: `SPICE_DEVICE` names a device that this machine does not have.
    """
    if settings.torch_threads is not None:
        torch.set_num_threads(settings.torch_threads)
    return WorkerContext(
        settings=settings,
        sessions=make_sessions(make_engine(settings)),
        queue=TaskQueue(settings),
        artifacts=open_artifacts(settings),
        device=resolve_device(settings.device),
        models=ModelCache(limits_of(settings)),
        tokenizers=TokenizerCache(limits_of(settings)),
    )


@cache
def current_context() -> WorkerContext:
    """This process's resources, made at the first call."""
    return make_context(get_settings())
