"""Per-sample gradients of the experts of a mixture: an implementation for transformers' own interface for experts.

In a mixture the rows that an expert's matrix sees are tokens of all samples, in the order of the routing. They are
gathered by sample here, padded with zeros to the most tokens that a sample has at the expert, so that the per-sample
gradients are one batched product as at any other layer. The routing is the model's own; its gradient is not taken.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from workers.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from workers.gradients.tap import Receive, Tap

IMPLEMENTATION = "spice_per_sample"
"""Name of this implementation among those of transformers."""


@dataclass(frozen=True, slots=True, eq=False)
class _Watch:
    """What is caught at one block's experts."""

    taps: Mapping[tuple[str, int], Tap]
    receive: Receive
    poll: Callable[[], None]
    shape: tuple[int, int]


_watches: WeakKeyDictionary[nn.Module, _Watch] = WeakKeyDictionary()


@contextmanager
def watched(
    taps: Mapping[nn.Module, Mapping[tuple[str, int], Tap]],
    receive: Receive,
    poll: Callable[[], None],
    shape: tuple[int, int],
) -> Iterator[None]:
    """Inside, the experts run expert by expert and give `receive` the factors of their gradients.

    Args:
        taps: By the module that holds a block's experts, then by the parameter's name and the expert's number.
        receive: As in `captured`.
        poll: As in `captured`.
        shape: The batch's rows B and positions T.
    """
    configs = {id(module.config): cast("Any", module.config) for module in taps}
    before = [(config, config._experts_implementation) for config in configs.values()]  # noqa: SLF001 - its only name
    for module, by_expert in taps.items():
        _watches[module] = _Watch(by_expert, receive, poll, shape)
    try:
        for config, _ in before:
            config._experts_implementation_internal = IMPLEMENTATION  # noqa: SLF001 - the setter takes known names only
        yield
    finally:
        for config, implementation in before:
            config._experts_implementation_internal = implementation  # noqa: SLF001 - as above
        for module in taps:
            _watches.pop(module, None)


def per_sample_experts(
    self: nn.Module, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """The experts' output, (tokens, hidden), as transformers' other implementations compute it.

    Args:
        self: The module that holds the experts.
        hidden_states: (tokens, hidden).
        top_k_index: The experts of each token, (tokens, k).
        top_k_weights: Their weights, (tokens, k).
    """
    experts, watch = cast("Any", self), _watches.get(self)
    tokens, choices = top_k_index.shape
    if watch is not None and tokens != watch.shape[0] * watch.shape[1]:
        raise ModelError(
            f"gradients.layers: the experts of {type(self).__name__} see {tokens} tokens of a batch of {watch.shape}, "
            "so that samples can't be told apart: leave experts out"
        )
    order = torch.argsort(top_k_index.reshape(-1), stable=True)
    counts = torch.bincount(top_k_index.reshape(-1), minlength=experts.num_experts)[: experts.num_experts]
    up = "gate_up_proj" if experts.has_gate else "up_proj"
    placed, outputs = [], []
    begin = 0
    for expert, count in enumerate(counts.tolist()):
        if count:
            pairs = order[begin : begin + count]
            frame = None if watch is None else _Frame.of(pairs // choices, watch.shape)
            inner = _linear(experts, up, expert, hidden_states[pairs // choices], watch, frame)
            inner = experts._apply_gate(inner) if experts.has_gate else experts.act_fn(inner)  # noqa: SLF001 - its name
            outer = _linear(experts, "down_proj", expert, inner, watch, frame)
            placed.append(pairs)
            outputs.append(experts.post_expert_norm(outer) if experts.has_post_expert_norm else outer)
            begin += count
    if not outputs:
        return torch.zeros_like(hidden_states)
    # Every pair back in its own place, then a sum in the order of the choices: no atomic additions.
    places = torch.cat(placed)
    whole = torch.zeros(tokens * choices, hidden_states.shape[-1], dtype=outputs[0].dtype, device=hidden_states.device)
    whole = whole.index_copy(0, places, torch.cat(outputs)) * top_k_weights.reshape(-1, 1)
    return whole.view(tokens, choices, -1).sum(1).to(hidden_states.dtype)


ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, per_sample_experts)


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """Where the tokens of one expert go, sample by sample.

    Attributes:
        row: Sample of each token, (N,).
        slot: The token's number among its sample's at this expert, (N,).
        rows: B.
        width: Most tokens of a sample.
    """

    row: torch.Tensor
    slot: torch.Tensor
    rows: int
    width: int

    @classmethod
    def of(cls, tokens: torch.Tensor, shape: tuple[int, int]) -> _Frame:
        """Of places among the B T tokens of a batch, (N,), ascending."""
        row = tokens // shape[1]
        counts = torch.bincount(row, minlength=shape[0])
        slot = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
        return cls(row, slot, shape[0], int(counts.max()))

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """(N, f) -> (B, width, f), 0 where a sample has fewer tokens."""
        framed = values.new_zeros((self.rows, self.width, values.shape[-1]))
        framed[self.row, self.slot] = values
        return framed


def _linear(
    experts: Any,  # noqa: ANN401 - a class of transformers for each architecture
    weights: str,
    expert: int,
    x: torch.Tensor,
    watch: _Watch | None,
    frame: _Frame | None,
) -> torch.Tensor:
    """One expert's matrix on its tokens, (N, in) -> (N, out), watched."""
    matrix: torch.Tensor = getattr(experts, weights)[expert]
    bias = getattr(experts, f"{weights}_bias")[expert] if experts.has_bias else None
    y = nn.functional.linear(x, matrix.T if experts.is_transposed else matrix, bias)
    tap = None if watch is None else watch.taps.get((weights, expert))
    if watch is None or frame is None or tap is None:
        return y
    watch.poll()
    if tap.low_rank is not None:
        y = y + tap.low_rank(x).to(y.dtype)
    if not tap.folds:
        return y
    folds, receive = tap.folds, watch.receive
    inputs = {part: frame(fold.inputs(x.detach())) for part, fold in folds.items()}
    if not y.requires_grad:
        y = y.detach().requires_grad_(True)

    def backward(delta: torch.Tensor) -> None:
        for part, fold in folds.items():
            receive(part, inputs[part], frame(fold.outputs(delta)))

    y.register_hook(backward)  # type: ignore[no-untyped-call]
    return y
