"""Loading a proxy model: out of a directory of this machine, from safetensors, and never any of its code."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from workers.models.architecture import BLOCK_NUMBER, frozen
from workers.models.device import beside
from workers.models.errors import ModelError, ModelTooLarge, in_brief
from workers.models.files import model_files, stamp
from workers.models.limits import ModelLimits
from workers.models.memory import DTYPES, available_memory, check_memory, memory_of
from workers.models.on_meta import model_on_meta
from workers.models.placement import device_map
from workers.models.quantised import keep_the_dtype, plain_numbers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from workers.models.memory import Work

DEFAULT_LIMITS = ModelLimits()
MOST_UNREAD = 20
"""Names of what the files hold besides that are told."""


@dataclass(frozen=True, slots=True, eq=False)
class ProxyModel:
    """A model that scores samples, in eval mode, its parameters frozen.

    Attributes:
        model: The causal language model.
        tokenizer: Its tokenizer.
        revision: sha256 over the names and contents of its configuration, tokenizer and weight files.
        path: The directory it came from.
        weights_stored_as: Format of quantised weights, such as ``nf4``; None for plain numbers.
        most_tokens: Tokens of a batch that memory has room for, as estimated before it was loaded; None: not estimated.
        unread: Names of what its weight files hold besides, such as blocks that the configuration does not count.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    revision: str
    path: Path
    weights_stored_as: str | None = None
    most_tokens: int | None = None
    unread: tuple[str, ...] = ()

    def batch_tokens(self, budget: int) -> int:
        """Tokens of a batch: as many as the budget, where memory has room for them."""
        return budget if self.most_tokens is None else max(1, min(budget, self.most_tokens))


def load_model(
    path: Path,
    *,
    dtype: str,
    device: torch.device,
    limits: ModelLimits = DEFAULT_LIMITS,
    further: Sequence[torch.device] = (),
    work: Work | None = None,
) -> ProxyModel:
    """Load a model and its tokenizer.

    Args:
        path: A directory with config.json, a tokenizer and safetensors files.
        dtype: ``float32`` or ``bfloat16``.
        device: Where it goes.
        limits: How large it may be.
        further: Devices that its blocks are spread over besides.
        work: What it is loaded for: whether memory will do is then estimated beforehand.

    Raises:
        ModelTooLarge: It can't fit into the memory that the devices have left.
        ModelError: Anything about the directory, the dtype or the architecture that can't serve; the message says
            what to do.
    """
    torch_dtype = _torch_dtype(dtype)
    files = model_files(path, limits)
    devices, most_tokens = (device, *further), None
    try:
        with files.unchanged(), files.alone(dtype) as directory:
            on_meta = model_on_meta(files, directory, limits)
            if work is not None:
                needed = memory_of(on_meta, files, torch_dtype, work)
                check_memory(
                    path.name, needed, work, devices, dtype=dtype, others=0 if further else len(beside(device))
                )
                most_tokens = needed.tokens_within(sum(map(available_memory, devices)))
            placed = None if {one.type for one in devices} == {"cpu"} else device_map(on_meta, devices)
            model, absent, unread = _loaded(directory, torch_dtype, placed)
            if files.weights_stored_as == "int8":
                model = plain_numbers(model, torch_dtype)
            keep_the_dtype(model)
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
            revision = files.revision
    except ModelError:
        raise
    except torch.OutOfMemoryError as error:
        raise _too_large(path, device) from error
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
    return ProxyModel(
        model=frozen(model),
        tokenizer=tokenizer,
        revision=revision,
        path=path,
        weights_stored_as=files.weights_stored_as,
        most_tokens=most_tokens,
        unread=unread,
    )


def _too_large(path: Path, device: torch.device) -> ModelTooLarge:
    return ModelTooLarge(
        f"model.uri: the memory of {device} ran out while {path.name} was loaded: set model.dtype to bfloat16, or use "
        "a smaller proxy model"
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

    def get(
        self,
        path: Path,
        *,
        dtype: str,
        device: torch.device,
        further: Sequence[torch.device] = (),
        work: Work | None = None,
    ) -> ProxyModel:
        """The model of the directory, loaded if it is not in memory; arguments and errors of `load_model`."""
        key = (path.resolve(), dtype, *map(str, (device, *further)), stamp(path))
        with self._lock:
            if self._model is None or key != self._key:
                self._drop()
                self._model = load_model(
                    path, dtype=dtype, device=device, limits=self._limits, further=further, work=work
                )
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


def _loaded(
    path: Path, dtype: torch.dtype, placed: dict[str, str] | None
) -> tuple[PreTrainedModel, list[str], tuple[str, ...]]:
    """The model, the names of the weights that its files lack or hold in another shape, and those of what it leaves.

    Args:
        path: Its directory.
        dtype: What it is computed in.
        placed: Device by module name, straight to which the weights go; None: the CPU.
    """
    load: Any = AutoModelForCausalLM.from_pretrained  # its type does not know of output_loading_info
    model, report = load(
        path,
        dtype=dtype,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # they are told in the report, not by an error that tells none
        output_loading_info=True,
        device_map=placed,
    )
    absent = sorted([*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])])
    return model, absent, _outermost(report["unexpected_keys"], model.state_dict())


def _outermost(tensors: Collection[str], known: Collection[str]) -> tuple[str, ...]:
    """The outermost modules, or tensors, that a model does not have: with ``*`` for the block's number within one."""
    modules = {module for name in known for module in _around(name)}
    strange = (next((module for module in _around(name) if module not in modules), name) for name in tensors)
    names = sorted({BLOCK_NUMBER.sub("*", name) for name in strange})
    return (*names[:MOST_UNREAD], f"and {len(names) - MOST_UNREAD} more") if len(names) > MOST_UNREAD else (*names,)


def _around(tensor: str) -> Iterator[str]:
    """The names of the modules that a tensor lies in, the outermost first, and its own."""
    return itertools.accumulate(tensor.split("."), "{}.{}".format)


def _torch_dtype(dtype: str) -> torch.dtype:
    """The torch dtype of a setting."""
    if dtype == "float16":
        raise ModelError("model.dtype: float16 gradients underflow without loss scaling: use bfloat16 or float32")
    if dtype not in DTYPES:
        raise ModelError(f"model.dtype: {dtype!r} is not one of {', '.join(DTYPES)}")
    return DTYPES[dtype]
