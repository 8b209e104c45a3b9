"""Loading a proxy model: out of a directory of this machine, from safetensors, and never any of its code."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from workers.models.architecture import frozen
from workers.models.errors import ModelError, in_brief
from workers.models.files import CONFIG, model_files, stamp
from workers.models.limits import ModelLimits
from workers.models.quantised import PACKED, plain_numbers

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from workers.models.files import ModelFiles

DEFAULT_LIMITS = ModelLimits()
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SPARE_ELEMENTS = 1 << 27
"""Numbers that a model may have beyond those in its files: rotary tables, masks."""


@dataclass(frozen=True, slots=True, eq=False)
class ProxyModel:
    """A model that scores samples, in eval mode, its parameters frozen.

    Attributes:
        model: The causal language model.
        tokenizer: Its tokenizer.
        revision: sha256 over the names and contents of its configuration, tokenizer and weight files.
        path: The directory it came from.
        weights_stored_as: Format of quantised weights, such as ``nf4``; None for plain numbers.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    revision: str
    path: Path
    weights_stored_as: str | None = None


def load_model(path: Path, *, dtype: str, device: torch.device, limits: ModelLimits = DEFAULT_LIMITS) -> ProxyModel:
    """Load a model and its tokenizer.

    Args:
        path: A directory with config.json, a tokenizer and safetensors files.
        dtype: ``float32`` or ``bfloat16``.
        device: Where it goes.
        limits: How large it may be.

    Raises:
        ModelError: Anything about the directory, the dtype or the architecture that can't serve; the message says
            what to do.
    """
    torch_dtype = _torch_dtype(dtype)
    files = model_files(path, limits)
    try:
        with files.unchanged(), files.alone(dtype) as directory:
            _check_size(files, directory, limits)
            model, absent = _loaded(directory, torch_dtype)
            if files.weights_stored_as == "int8":
                model = plain_numbers(model, torch_dtype)
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
            revision = files.revision
    except ModelError:
        raise
    except ImportError as error:
        raise ModelError(
            f"model.uri: the weights of {path.name} are stored as {files.weights_stored_as}, which this worker lacks a "
            f"package for ({in_brief(error)}): use the original weights"
        ) from error
    except Exception as error:  # transformers raises whatever a broken file brings about
        raise ModelError(
            f"model.uri: {path.name} can't be loaded ({in_brief(error)}): it must be a "
            "causal language model with its tokenizer, as save_pretrained writes it"
        ) from error
    if absent:  # transformers fills them with random numbers and only warns
        raise ModelError(
            f"model.uri: {path.name} lacks weights that its configuration asks for, or has them in other shapes: "
            f"{absent[0]}, {len(absent)} in all; copy the model again"
        )
    if model.config.is_encoder_decoder:
        raise ModelError(f"model.uri: {path.name} is an encoder-decoder: choose a decoder-only model")
    try:
        nn.Module.to(model, device)
    except torch.OutOfMemoryError as error:
        raise ModelError(f"model.uri: {path.name} does not fit on {device}: use bfloat16 or a smaller model") from error
    return ProxyModel(
        model=frozen(model),
        tokenizer=tokenizer,
        revision=revision,
        path=path,
        weights_stored_as=files.weights_stored_as,
    )


class ModelCache:
    """Keeps the last model, so that a worker process loads a model once and not once a job.

    One model at a time: a new one replaces the old before it is loaded, since two may not fit. A directory whose
    files changed (size or time of change) is loaded again.
    """

    def __init__(self, limits: ModelLimits | None = None) -> None:
        """Start empty."""
        self._limits = limits or ModelLimits()
        self._lock = Lock()
        self._key: tuple[object, ...] | None = None
        self._model: ProxyModel | None = None

    def get(self, path: Path, *, dtype: str, device: torch.device) -> ProxyModel:
        """The model of the directory, loaded if it is not in memory; arguments and errors of `load_model`."""
        key = (path.resolve(), dtype, str(device), stamp(path))
        with self._lock:
            if self._model is None or key != self._key:
                self._drop()
                self._model = load_model(path, dtype=dtype, device=device, limits=self._limits)
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


def _check_size(files: ModelFiles, directory: Path, limits: ModelLimits) -> None:
    """Refuse a configuration that asks for more than the weight files hold, before anything is made of that size.

    Raises:
        ModelError: It does.
    """
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    held = len(files.tensors)
    for name, value in config.get_text_config().to_dict().items():
        counts_layers = name.endswith("_layers") and name != "max_window_layers"
        if counts_layers and isinstance(value, int) and value > held:
            raise ModelError(
                f"model.uri: {files.path.name}/{CONFIG} asks for {name} {value:,}, but its weight files hold {held:,} "
                "tensors: copy the model again"
            )
    with torch.device("meta"):
        make: Any = AutoModelForCausalLM.from_config
        model = make(config, trust_remote_code=False)
    asked = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    stored = sum(tensor.elements for tensor in files.tensors)
    if files.weights_stored_as is not None:
        stored *= PACKED
    if asked > stored + SPARE_ELEMENTS:
        raise ModelError(
            f"model.uri: {files.path.name}/{CONFIG} asks for {asked:,} numbers, but its weight files hold {stored:,}: "
            "copy the model again"
        )
    size = asked * torch.float32.itemsize
    if size > limits.max_bytes:
        raise ModelError(
            f"model.uri: {files.path.name} takes {size:,} bytes in float32, the limit is {limits.max_bytes:,}: "
            "use a smaller proxy model, or raise SPICE_MODEL_MAX_BYTES"
        )


def _loaded(path: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, list[str]]:
    """The model, and the names of the weights that its files lack or hold in another shape."""
    load: Any = AutoModelForCausalLM.from_pretrained  # its type does not know of output_loading_info
    model, report = load(
        path,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # they are told in the report, not by an error that tells none
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
