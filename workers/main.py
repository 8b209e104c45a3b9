"""The worker process: `python -m workers.main`.

RQ's `SimpleWorker` runs tasks in the worker's own process. Its other classes fork or spawn a process for each task:
a fork after CUDA is initialised breaks CUDA, and a new process would load the model anew for every job. What the
separate process gave (a killed task leaves the worker alive) the lease gives instead: when the process dies, its row
is queued again and whoever supervises the process starts another.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from redis import Redis
from rq import SimpleWorker
from rq.exceptions import InvalidJobOperation
from rq.job import Job
from rq.serializers import JSONSerializer

from app.core.queue import TASK, queue_name
from app.core.settings import get_settings
from app.core.telemetry import logs, tracing
from workers.models.errors import ModelError
from workers.runtime.context import current_context
from workers.runtime.presence import Presence
from workers.runtime.tidying import tidy

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from redis.client import Pipeline

logger = logging.getLogger(__name__)


class NamedTask(Job):
    """A message of the queue. It may name the service's task only: who can write to Redis must not run code here.

    RQ would also call functions, and send requests to servers, that a message names for when its task has ended.
    """

    success_callback = None
    failure_callback = None
    stopped_callback = None

    def send_webhooks(self, *_: object, **__: object) -> None:
        """Send none."""

    def cleanup(self, ttl: int | None = None, pipeline: Pipeline | None = None, remove_from_queue: bool = True) -> None:
        """Forget the message at its end, or what this end wrote of one that is gone.

        While a worker is at other rows than the one whose message has woken it, the reconciler puts that row's message
        again. Whoever ends first deletes it; to RQ the other end would be a failure, with a traceback in the log.
        """
        try:
            super().cleanup(ttl, pipeline=pipeline, remove_from_queue=remove_from_queue)
        except InvalidJobOperation:
            (self.connection if pipeline is None else pipeline).delete(self.key)

    @property
    def func(self) -> Callable[..., Any]:
        """The task's function.

        Raises:
            ValueError: The message names something else.
        """
        if self.func_name != TASK:
            raise ValueError(f"message {self.id} names {self.func_name!r}, which is not a task of this service")
        function: Callable[..., Any] = super().func
        return function


class InProcessWorker(SimpleWorker):
    """Runs tasks in this process, and tells the running one to hand back when the process is asked to end."""

    job_class = NamedTask

    def run_maintenance_tasks(self) -> None:
        """RQ's own between two tasks, every 10 minutes, and ours."""
        super().run_maintenance_tasks()  # type: ignore[no-untyped-call]
        tidy(current_context())

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT: the running task stops at its next batch and its row goes back to the queue."""
        current_context().stopping.set()
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]


def run() -> int:
    """Work until told to stop; the exit code."""
    # Before CUDA is initialised: without it cuBLAS may sum in another order from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    settings = get_settings()
    logs.configure(settings)
    try:
        if settings.traces == "otlp":
            tracing.start("spice-worker")
        context = current_context()
    except (ModelError, tracing.TracingNotInstalled) as error:
        logger.critical("%s", error)
        return 2
    # The libraries stay: a full collection, for which transformers' Trainer asks after each run, need not look at them.
    gc.freeze()
    queues = [queue_name(settings, kind) for kind in settings.worker_queues]
    logger.info("worker %s on %s, queues %s", context.name, context.device, ", ".join(queues))
    connection = Redis.from_url(str(settings.redis_url), health_check_interval=30)
    worker = InProcessWorker(queues, connection=connection, serializer=JSONSerializer)
    with Presence(context):
        worker.work(logging_level=settings.log_level)
    tracing.stop()
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(run())
