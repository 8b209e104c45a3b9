"""`spice serve` as a child process: the whole service on this machine, up for as long as the demo runs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 60
LOG_TAIL_LINES = 25

# A worker tells how far it is after each batch. Small ones cost nothing on a processor, and the bar keeps moving.
BATCH_TOKENS = "1024"


class ServiceError(Exception):
    """The service did not come up, or went away."""

    def __init__(self, what: str, log: Path) -> None:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        tail = "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:])
        super().__init__(f"{what} The end of {log}:\n{tail}")


@contextmanager
def running(data: Path, log: Path) -> Iterator[str]:
    """Runs the service on a free port and yields its address; stops it at the end.

    Args:
        data: Where the service keeps its data. Jobs may name what is in its `datasets` and `models`.
        log: What the service writes goes here.

    Raises:
        ServiceError: If it cannot serve within three minutes.
    """
    port = _free_port()
    environment = {"SPICE_TOKEN_BUDGET": BATCH_TOKENS, **os.environ} | {
        "SPICE_DATA_DIR": str(data),
        "SPICE_ALLOWED_ROOTS": f"{data / 'datasets'},{data / 'models'}",
        "SPICE_HOST": "127.0.0.1",
        "SPICE_PORT": str(port),
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(  # noqa: S603 - our own words
            [Path(sys.executable).with_name("spice"), "serve"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours: the job is cancelled first, then the service stopped in order
        )
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_until_ready(process, address, log)
            yield address
        finally:
            _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServiceError(f"spice serve ended with status {process.returncode}.", log)
        try:
            if httpx.get(f"{address}/readyz", timeout=5, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise ServiceError(f"spice serve was not ready after {START_TIMEOUT_S} seconds.", log)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
