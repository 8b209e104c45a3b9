"""Loading a proxy model: out of a local directory, from safetensors, and never any of its code."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from workers.gradients.architecture import frozen
from workers.gradients.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CONTENT_SUFFIXES = frozenset({".json", ".jinja", ".txt", ".model", ".safetensors"})
NOT_CONTENT = frozenset({"generation_config.json"})
HASH_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class ModelTokenizer:
    """What reading needs of a model: no weights.

    Attributes:
        tokenizer: The model's tokenizer.
        revision: As in `ProxyModel`.
    """

    tokenizer: PreTrainedTokenizerBase
    revision: str


@dataclass(frozen=True, slots=True, eq=False)
class ProxyModel:
    """A model that scores samples, in eval mode, its parameters frozen.

    Attributes:
        model: The causal language model.
        tokenizer: Its tokenizer.
        revision: sha256 over the names and contents of its configuration, tokenizer and weight files.
        path: The directory it came from.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    revision: str
    path: Path


def load_model(path: Path, *, dtype: str, device: torch.device) -> ProxyModel:
    """Load a model and its tokenizer.

    Args:
        path: A directory with config.json, a tokenizer and safetensors files.
        dtype: ``float32`` or ``bfloat16``.
        device: Where it goes.

    Raises:
        ModelError: Anything about the directory, the dtype or the architecture that can't serve; the message says
            what to do.
    """
    torch_dtype = _torch_dtype(dtype)
    files = model_files(path)
    revision = model_revision(files)
    try:
        model, absent = _loaded(path, torch_dtype)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever a broken file brings about
        raise ModelError(
            f"model.uri: {path.name} can't be loaded ({type(error).__name__}: {_first_line(error)}): it must be a "
            "causal language model with its tokenizer, as save_pretrained writes it"
        ) from error
    if absent:  # transformers fills them with random numbers and only warns
        raise ModelError(
            f"model.uri: {path.name} lacks weights that its configuration asks for: {absent[0]}, "
            f"{len(absent)} in all; copy the model again"
        )
    if model.config.is_encoder_decoder:
        raise ModelError(f"model.uri: {path.name} is an encoder-decoder: choose a decoder-only model")
    try:
        nn.Module.to(model, device)
    except torch.OutOfMemoryError as error:
        raise ModelError(f"model.uri: {path.name} does not fit on {device}: use bfloat16 or a smaller model") from error
    return ProxyModel(model=frozen(model), tokenizer=tokenizer, revision=revision, path=path)


def model_files(path: Path) -> list[Path]:
    """The files that make the model, sorted by name, after every check that needs no loading.

    Raises:
        ModelError: Not a directory, a link that leaves it, weights other than safetensors, remote code,
            quantised weights.
    """
    if not path.is_dir():
        raise ModelError(f"model.uri: {path} is not a directory: give the local directory of a saved model")
    root = path.resolve()
    entries = sorted(path.iterdir(), key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_symlink() and not entry.resolve().is_relative_to(root):
            raise ModelError(
                f"model.uri: {path.name}/{entry.name} is a link out of the directory: "
                "copy the model with its links resolved (cp -rL)"
            )
    names = {entry.name for entry in entries}
    if "config.json" not in names:
        raise ModelError(f"model.uri: {path.name} has no config.json: give the directory of a saved model")
    if not any(name.endswith(".safetensors") for name in names):
        raise ModelError(
            f"model.uri: {path.name} has no .safetensors file: other weight files can run code when opened; "
            "save the model again with safe_serialization=True"
        )
    for entry in entries:
        if entry.suffix == ".json":
            _refuse_code(path, entry)
    return [
        entry
        for entry in entries
        if entry.is_file() and entry.suffix in CONTENT_SUFFIXES and entry.name not in NOT_CONTENT
    ]


def model_revision(files: Sequence[Path]) -> str:
    """Sha256, in hex, over the name and content of each file; the same wherever the directory lies."""
    total = hashlib.sha256()
    for file in files:
        content = hashlib.sha256()
        with file.open("rb") as stream:
            while chunk := stream.read(HASH_CHUNK):
                content.update(chunk)
        total.update(f"{file.name}\0{content.hexdigest()}\n".encode())
    return total.hexdigest()


class ModelCache:
    """Keeps the last model, so that a worker process loads a model once and not once a job.

    One model at a time: a new one replaces the old before it is loaded, since two may not fit. A directory whose
    files changed (size or time of change) is loaded again.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._lock = Lock()
        self._key: tuple[object, ...] | None = None
        self._model: ProxyModel | None = None

    def get(self, path: Path, *, dtype: str, device: torch.device) -> ProxyModel:
        """The model of the directory, loaded if it is not in memory; arguments and errors of `load_model`."""
        stats = [(file.name, file.stat()) for file in model_files(path)]
        contents = tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
        key = (path.resolve(), dtype, str(device), contents)
        with self._lock:
            if self._model is None or key != self._key:
                self._drop()
                self._model = load_model(path, dtype=dtype, device=device)
                self._key = key
            return self._model

    def clear(self) -> None:
        """Forget the model."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        self._model = self._key = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _loaded(path: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, list[str]]:
    """The model, and the names of the weights that its files lack."""
    load: Any = AutoModelForCausalLM.from_pretrained  # its type does not know of output_loading_info
    model, report = load(
        path,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        output_loading_info=True,
    )
    return model, sorted([*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])])


def _torch_dtype(dtype: str) -> torch.dtype:
    """The torch dtype of a setting."""
    if dtype == "float16":
        raise ModelError("model.dtype: float16 gradients underflow without loss scaling: use bfloat16 or float32")
    if dtype not in DTYPES:
        raise ModelError(f"model.dtype: {dtype!r} is not one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _refuse_code(path: Path, file: Path) -> None:
    """Refuse a JSON file that names code to run, or weights packed in a way that can't be differentiated."""
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise ModelError(f"model.uri: {path.name}/{file.name} is not JSON: copy the model again") from error
    settings = cast("dict[str, object]", content) if isinstance(content, dict) else {}
    if "auto_map" in settings:
        raise ModelError(
            f"model.uri: {path.name}/{file.name} asks to run code that comes with the model (auto_map), "
            "which is never done: choose a model whose architecture is part of transformers"
        )
    if file.name == "config.json" and settings.get("quantization_config"):
        raise ModelError(f"model.uri: {path.name} is quantised: use the original weights in bfloat16")


def _first_line(error: BaseException) -> str:
    """The beginning of an error's message."""
    return (str(error).strip().splitlines() or [""])[0][:200]
