"""A run's checkpoints in the artifact store, where the next worker finds the last one."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from app.core.storage import ArtifactStore

NEEDED = frozenset(
    {
        *("adapter_config.json", "adapter_model.safetensors", "trainer_state.json"),
        *("optimizer.pt", "scheduler.pt", "rng_state.pth"),
    }
)
"""What Trainer goes on from. Of the `.pt` files it reads tensors alone (`weights_only`): they can run nothing."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A checkpoint on this machine.

    Attributes:
        path: Its directory.
        step: Steps that were done.
    """

    path: Path
    step: int


class Checkpoints:
    """Of one run. A checkpoint counts once all its files are there: then the index names it."""

    def __init__(self, artifacts: ArtifactStore, prefix: str) -> None:
        """Keep them below a prefix, which ends in `/`."""
        self._artifacts, self._prefix = artifacts, prefix

    def keep(self, directory: Path, step: int) -> None:
        """Store a checkpoint and drop the one before; its files go with the directory."""
        before = self._index()
        sums = {}
        for path in sorted(directory.iterdir()):
            if path.name in NEEDED:
                sums[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
                self._artifacts.put(self._name(step, path.name), path)
        self._artifacts.write(f"{self._prefix}index.json", json.dumps({"step": step, "files": sums}).encode())
        shutil.rmtree(directory)
        if before is not None and before[0] != step:
            self._artifacts.remove_all(f"{self._prefix}{before[0]}/")

    def restore(self, directory: Path) -> Restored | None:
        """Fetch the last checkpoint into a directory; None where there is none that is whole."""
        index = self._index()
        if index is None:
            return None
        step, sums = index
        path = directory / f"checkpoint-{step}"
        path.mkdir()
        for name, digest in sums.items():
            content = self._artifacts.read(self._name(step, name)) if name in NEEDED else None
            if content is None or hashlib.sha256(content).hexdigest() != digest:
                shutil.rmtree(path)
                return None
            (path / name).write_bytes(content)
        return Restored(path, step)

    def drop(self) -> None:
        """Delete them: the run has ended."""
        self._artifacts.remove_all(self._prefix)

    def _name(self, step: int, file: str) -> str:
        return f"{self._prefix}{step}/{file}"

    def _index(self) -> tuple[int, dict[str, str]] | None:
        content = self._artifacts.read(f"{self._prefix}index.json")
        try:
            found = json.loads(content or b"")
            return int(found["step"]), {str(name): str(digest) for name, digest in found["files"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
