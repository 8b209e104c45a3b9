"""Per-sample gradients by the public packages bergson and traker, as their documentation uses them, on the CPU.

Both are installed without their dependencies (requirements-bench.lock). bergson declares torchvision, torchaudio and
bitsandbytes, which nothing here imports and which would bring another torch.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from bergson import GradientProcessor, IndexConfig, InMemoryCollector
from bergson.collector.collector import CollectorComputer
from datasets import Dataset
from torch.func import functional_call
from trak import TRAKer
from trak.modelout_functions import AbstractModelOutput
from trak.projectors import BasicProjector

from workers.gradients.batches import input_lengths, plan_batches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PreTrainedModel

    from workers.data.samples import Sample

    Tensors = dict[str, torch.Tensor]

IGNORED = -100
BERGSON_SIDE = 16
"""Its Trackstar default: 16 x 16 numbers for every linear layer."""


@dataclass(frozen=True)
class Bergson:
    """Gradients of the blocks' linear layers, projected layer by layer from both sides, kept in memory."""

    model: PreTrainedModel
    token_budget: int

    def __call__(self, samples: Sequence[Sample]) -> None:
        rows = {
            "input_ids": [sample.input_ids.tolist() for sample in samples],
            "labels": [
                [
                    int(token) if loss else IGNORED
                    for token, loss in zip(sample.input_ids, sample.loss_mask, strict=True)
                ]
                for sample in samples
            ],
        }
        data = Dataset.from_dict({**rows, "length": [sample.tokens for sample in samples]})
        lengths = input_lengths(samples)
        batches = [batch.tolist() for batch in plan_batches(lengths + 1, lengths.argsort(), self.token_budget)]
        with tempfile.TemporaryDirectory() as directory, _quietly():
            config = IndexConfig(run_path=f"{directory}/run", projection_dim=BERGSON_SIDE)
            config.partial_run_path.mkdir()
            self.model.get_input_embeddings().requires_grad_(requires_grad=True)  # as its own worker does
            collector = InMemoryCollector(
                model=self.model.base_model,
                cfg=config,
                processor=GradientProcessor(projection_dim=BERGSON_SIDE),
                data=data,
            )
            computer = CollectorComputer(self.model, data, collector=collector, batches=batches, cfg=config)
            computer.run_with_collector_hooks()
            self.model.requires_grad_(requires_grad=False)
        assert len(collector.gradients) == len(collector.target_info)


class _ResponseLoss(AbstractModelOutput):
    """Cross-entropy of the labels, summed, as TRAK wants to be told it."""

    def __init__(self) -> None:
        """Nothing to keep."""

    @staticmethod
    def get_output(
        model: torch.nn.Module, weights: Tensors, buffers: Tensors, ids: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        inputs = {"input_ids": ids.unsqueeze(0), "use_cache": False}
        logits = functional_call(model, (weights, buffers), kwargs=inputs).logits[0, :-1]
        return torch.nn.functional.cross_entropy(logits, labels[1:], ignore_index=IGNORED, reduction="sum")

    @staticmethod
    def get_out_to_loss_grad(
        _model: torch.nn.Module, _weights: Tensors, _buffers: Tensors, batch: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        return torch.ones(batch[0].shape[0], 1)


@dataclass(frozen=True)
class Trak:
    """Gradients of chosen parameters by torch.func, projected by a dense random matrix."""

    model: PreTrainedModel
    parameters: Sequence[str]
    dim: int

    def __call__(self, batches: Sequence[dict[str, torch.Tensor]]) -> None:
        rows = sum(batch["input_ids"].shape[0] for batch in batches)
        size = sum(self.model.get_parameter(name).numel() for name in self.parameters)
        with tempfile.TemporaryDirectory() as directory, _quietly():
            projector = BasicProjector(size, self.dim, seed=0, proj_type="rademacher", device="cpu")
            traker = TRAKer(
                model=self.model,
                task=_ResponseLoss(),
                train_set_size=rows,
                save_dir=directory,
                device="cpu",
                projector=projector,
                proj_dim=self.dim,
                use_half_precision=False,
                grad_wrt=list(self.parameters),
                logging_level=logging.ERROR,
            )
            traker.load_checkpoint(self.model.state_dict(), model_id=0)
            for batch in batches:
                traker.featurize(batch=(batch["input_ids"], batch["labels"]), num_samples=batch["input_ids"].shape[0])


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without the packages' progress bars and what they log."""
    logging.disable(logging.INFO)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
