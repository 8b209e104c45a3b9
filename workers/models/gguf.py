"""Unpack GGUF files, once each: ``<cache_path>/models/<key>`` is then a model like any other.

The weights are unpacked to the job's dtype, by transformers, in a process of its own (`workers.models.unpack`) with
limits of memory and time.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from functools import lru_cache
from typing import TYPE_CHECKING, BinaryIO

import gguf
import transformers

from workers.data.stopping import Stopped
from workers.models.errors import ModelError
from workers.models.fetch import CacheFailed, limits_of
from workers.models.gguf_header import check_gguf

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from app.core.settings import Settings

logger = logging.getLogger(__name__)

LAYOUT_VERSION = 1
"""Part of a copy's key: raise it when the same file gives other copies."""
BASE_BYTES = 4 << 30
"""Memory of the process before it has read anything, with room."""
COPIES = 3
"""Times that a tensor may be in memory in float32 while it is unpacked."""
LOOK_S = 0.1
ENVIRONMENT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "TMPDIR", "OMP_NUM_THREADS", "OMP_WAIT_POLICY")
"""What the process sees of this one's environment: no credentials."""
OUTPUT_BYTES = 4096


def unpacked(file: Path, dtype: str, settings: Settings, should_stop: Callable[[], bool] | None = None) -> Path:
    """The directory of a GGUF file's model, unpacked; one that is there already is used again.

    Args:
        file: The file.
        dtype: ``float32`` or ``bfloat16``.
        settings: ``cache_path``, ``model_max_bytes``, ``model_json_max_bytes``, ``model_unpack_timeout_s``.
        should_stop: Asked several times a second; True gives up.

    Raises:
        ModelError: It is not a GGUF file that transformers can read, or it is larger or slower than the limits.
        CacheFailed: The cache can't be written.
        Stopped: ``should_stop`` said so.
    """
    elements = check_gguf(file, limits_of(settings))
    made_from = (_digest(file), dtype, str(LAYOUT_VERSION), transformers.__version__, _gguf_version())
    copy = settings.cache_path / "models" / hashlib.sha256("\0".join(made_from).encode()).hexdigest()
    if copy.is_dir():
        return copy
    unfinished = copy.with_name(f".{os.getpid()}-{secrets.token_hex(8)}")
    memory = BASE_BYTES + COPIES * 4 * elements
    try:
        try:
            unfinished.mkdir(parents=True)
        except OSError as error:
            raise CacheFailed(error.errno, f"the model cache cannot be written ({error.strerror})") from error
        code, words = _run(file, unfinished, dtype, memory, settings, should_stop)
        if code < 0:
            logger.warning("signal %d ended the process that unpacks %s: it is started again", -code, file)
            shutil.rmtree(unfinished)
            unfinished.mkdir()
            code, words = _run(file, unfinished, dtype, memory, settings, should_stop)
        if code:
            raise _failed(file, code, memory, words)
        with contextlib.suppress(OSError):  # another worker was quicker, and its copy is as good
            unfinished.rename(copy)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return copy


def _run(
    file: Path, target: Path, dtype: str, memory: int, settings: Settings, should_stop: Callable[[], bool] | None
) -> tuple[int, str]:
    """Exit status of the process, negative for a signal, and its last words."""
    seconds = settings.model_unpack_timeout_s
    command = [sys.executable, "-m", "workers.models.unpack"]
    arguments = [str(file), str(target), dtype, str(memory), str(int(seconds) + 60)]
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(  # noqa: S603 - our own module; the rest are its arguments
            [*command, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        deadline = time.monotonic() + seconds
        try:
            while process.poll() is None:
                if should_stop is not None and should_stop():
                    raise Stopped
                if time.monotonic() > deadline:
                    raise ModelError(
                        f"model.uri: unpacking {file.name} took more than {seconds:g} s: unpack it beforehand with "
                        "transformers' save_pretrained, or raise SPICE_MODEL_UNPACK_TIMEOUT_S"
                    )
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_S)
        finally:
            process.kill()
            process.wait()
        return process.returncode, _last_words(output)


def _failed(file: Path, code: int, memory: int, words: str) -> ModelError:
    logger.warning("unpacking %s ended with %d: %s", file, code, words)
    if code < 0:
        return ModelError(
            f"model.uri: the process that unpacks {file.name} was ended twice by signal {-code}: it had "
            f"{memory:,} bytes of memory; look for memory kills on the worker's machine, then submit again"
        )
    if "MemoryError" in words or "memory" in words:
        words = f"{words}; it had {memory:,} bytes of memory"
    return ModelError(
        f"model.uri: {file.name} can't be unpacked ({words}): it must be a causal language model of an architecture "
        "whose GGUF files transformers reads"
    )


def _last_words(output: BinaryIO) -> str:
    output.seek(0, os.SEEK_END)
    output.seek(max(0, output.tell() - OUTPUT_BYTES))
    lines = output.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""


def _digest(file: Path) -> str:
    stat = file.stat()
    return _digest_of(file, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=16)
def _digest_of(file: Path, *_: int) -> str:
    """Sha256 of a file's content, read again when its size or time of change is another."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _gguf_version() -> str:
    return str(getattr(gguf, "__version__", ""))
