"""What goes wrong in a process of `tests.integration.processes`: each function sets one fault up inside it."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import resource
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def at(point: str, action: str) -> None:
    """Kill the process (`die`), stop it (`freeze`) or ask it to end (`terminate`) at a point of a job.

    Args:
        point: `taken` (the message has left the queue, nothing has begun), `reading`, `range` (its tokens are made and
            not written), `gradients`, `selecting`,
            `publishing` (all is written, nothing committed) or `published` (committed, but the queue has not heard
            of it).
        action: One of the three.
    """
    number = {"die": signal.SIGKILL, "freeze": signal.SIGSTOP, "terminate": signal.SIGTERM}[action]
    POINTS[point](lambda: os.kill(os.getpid(), number))


def _taken(happen: Callable[[], None]) -> None:
    from workers.main import InProcessWorker  # noqa: PLC0415

    execute = InProcessWorker.execute_job

    def execute_job(worker: InProcessWorker, *arguments: Any) -> None:
        happen()
        execute(worker, *arguments)  # type: ignore[no-untyped-call]

    InProcessWorker.execute_job = execute_job  # type: ignore[method-assign]


def _reading(happen: Callable[[], None]) -> None:
    from workers.stages import reading  # noqa: PLC0415

    build = reading.build_corpus

    def build_corpus(*arguments: Any, **options: Any) -> Any:
        return build(*arguments, **{**options, "on_rows": lambda _rows: happen()})

    reading.build_corpus = build_corpus  # type: ignore[assignment]


def _range(happen: Callable[[], None]) -> None:
    from workers.stages import pieces  # noqa: PLC0415

    read = pieces.read_piece

    def read_not_written(*arguments: Any, **options: Any) -> Any:
        piece = read(*arguments, **options)
        happen()
        return piece

    pieces.read_piece = read_not_written


def _gradients(happen: Callable[[], None]) -> None:
    from workers.gradients.shards import ShardStore  # noqa: PLC0415

    write = ShardStore.write

    def computed_not_written(store: ShardStore, *arguments: Any) -> None:
        happen()
        write(store, *arguments)

    ShardStore.write = computed_not_written  # type: ignore[method-assign]


def _selecting(happen: Callable[[], None]) -> None:
    """At the third pick, or the third of a merge."""
    _at_picks(lambda progress: happen() if progress.done == 3 else None)


def _at_picks(happen: Callable[[Any], None]) -> None:
    from workers.stages import job_selecting as selecting  # noqa: PLC0415

    selecting.select, selecting.merge = _telling(selecting.select, happen), _telling(selecting.merge, happen)


def _telling(function: Callable[..., Any], happen: Callable[[Any], None]) -> Callable[..., Any]:
    def selects(*arguments: Any, **options: Any) -> Any:
        tell = options["on_progress"]

        def on_progress(progress: Any) -> None:
            tell(progress)
            if progress.stage == "picking":
                happen(progress)

        return function(*arguments, **{**options, "on_progress": on_progress})

    return selects


def _publishing(happen: Callable[[], None]) -> None:
    from workers.stages import publishing  # noqa: PLC0415

    result = publishing.result_of

    def rows_are_stored(*arguments: Any) -> Any:
        happen()
        return result(*arguments)

    publishing.result_of = rows_are_stored


def _published(happen: Callable[[], None]) -> None:
    from workers.stages import job as job_stage  # noqa: PLC0415

    publish = job_stage.publish

    def publishes(*arguments: Any) -> None:
        publish(*arguments)
        happen()

    job_stage.publish = publishes


def _part(happen: Callable[[], None]) -> None:
    """In the second part that this worker takes."""
    from workers.stages import part  # noqa: PLC0415

    select_part = part.select_part
    calls = itertools.count(1)

    def selects(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 2:
            happen()
        return select_part(*arguments, **options)

    part.select_part = selects


POINTS: dict[str, Callable[[Callable[[], None]], None]] = {
    "taken": _taken,
    "reading": _reading,
    "range": _range,
    "gradients": _gradients,
    "selecting": _selecting,
    "part": _part,
    "publishing": _publishing,
    "published": _published,
}


def die_before_enqueueing() -> None:
    """Kill the API when it has committed a job and is about to put it into the queue."""
    from app.core.queue import TaskQueue  # noqa: PLC0415

    def put(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    TaskQueue.put = put  # type: ignore[method-assign]


def full_at(size: str) -> None:
    """No file may grow beyond `size` bytes: the kernel refuses the write, as it does on a full disk.

    The log goes nowhere: it is a file of the tests' own, which may be larger already.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))


def without_privileges() -> None:
    """Give up what lets root write where it may not: what is read-only is so for this process too."""
    if os.geteuid() == 0:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
        none = (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None, use_errno=True).capset(header, none) == 0, os.strerror(ctypes.get_errno())


def impatient() -> None:
    """Ask a bucket once, where a worker asks for some seconds; and soon again, where it waits for one."""
    from app.core.lifecycle import leases  # noqa: PLC0415
    from app.core.storage import s3  # noqa: PLC0415

    s3.ATTEMPTS, s3.REQUEST_ATTEMPTS = 1, 1
    leases.SHORTEST_WAIT = timedelta(seconds=0.2)


def clock_off_by(seconds: str) -> None:
    """Have the host's clock go wrong by that much."""
    import time_machine  # noqa: PLC0415

    time_machine.travel(time.time() + float(seconds), tick=True).start()


def slow_picks(seconds: str) -> None:
    """Take that long for each pick."""
    _at_picks(lambda _: time.sleep(float(seconds)))


def slow_windows(seconds: str) -> None:
    """Take that much longer for each window of a schedule."""
    from workers.stages import schedule  # noqa: PLC0415

    select = schedule.select

    def selects(*arguments: Any, **options: Any) -> Any:
        time.sleep(float(seconds))
        return select(*arguments, **options)

    schedule.select = selects


def slow_parts(seconds: str) -> None:
    """Take that long for each pick of a part."""
    from workers.stages import part  # noqa: PLC0415

    part.select_part = _telling(part.select_part, lambda _: time.sleep(float(seconds)))


def damages_a_shard_before_the_parts() -> None:
    """Flip a byte of a shard between the look at all sketches and that of the parts, once."""
    from app.core.settings import get_settings  # noqa: PLC0415
    from workers.stages import job_parts  # noqa: PLC0415

    settle = job_parts.settle
    calls = itertools.count(1)

    def settles(*arguments: Any, **options: Any) -> Any:
        place = get_settings().artifacts_path
        if next(calls) == 1 and place is not None:
            shard = next(iter(place.glob("sketches/*/shard-*.safetensors")))
            content = bytearray(shard.read_bytes())
            content[-5] ^= 0xFF
            shard.write_bytes(content)
        return settle(*arguments, **options)

    job_parts.settle = settles


def fails_now_and_then() -> None:
    """Have every third write to the store's directory fail as on a network file system that is away."""
    from app.core.storage import local  # noqa: PLC0415

    write = local._written
    calls = itertools.count(1)

    def written(*arguments: Any) -> Any:
        if next(calls) % 3 == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return write(*arguments)

    local._written = written


def deaf(point: str, bell: str) -> None:
    """Take no notice of anything at a point until there is a file `bell`, as a library does that waits for a server."""

    def wait() -> None:
        while not Path(bell).exists():
            time.sleep(0.02)

    POINTS[point](wait)


def slow_shards(seconds: str) -> None:
    """Take that long for each shard."""
    POINTS["gradients"](lambda: time.sleep(float(seconds)))
