"""One training loop for whatever trains a proxy: transformers' Trainer over rows of tokens.

A step's loss is the mean over its response tokens. The step is taken in pieces of at most `piece_tokens` positions, and
the gradients of the pieces add up to the whole step's: memory bounds a piece and not the step. Where a piece does not
fit, the pieces are halved and the step begins again.
"""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from workers.data.stopping import Stopped
from workers.gradients.batches import collate, input_lengths, plan_batches
from workers.models.errors import SampleTooLarge
from workers.training.logits import label_losses
from workers.training.stopping import stopping_at_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from peft import PeftModel
    from torch import nn
    from transformers import PreTrainedModel, TrainerControl, TrainerState

    from workers.data.samples import Sample, Samples
    from workers.training.checkpoints import Checkpoints

logger = logging.getLogger(__name__)

SCHEDULER = "cosine"
LARGEST_GRADIENT = 1.0


class LossNotFinite(Exception):
    """The loss became infinite or NaN: the run can't go on."""

    def __init__(self, step: int, steps: int) -> None:
        """Name the step, from 1."""
        super().__init__(
            f"the loss of step {step} of {steps} is not a finite number: lower training.learning_rate, or use float32"
        )


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How a run trains.

    Attributes:
        batches: Places among the samples, step by step.
        learning_rate: The largest; it falls as a cosine to 0.
        seed: Of whatever is random besides: dropout, where a model has it.
        piece_tokens: Positions of a forward pass at most, padding included; a longer row goes alone.
        checkpoint_s: Seconds from one checkpoint to the next.
    """

    batches: Sequence[NDArray[np.int64]]
    learning_rate: float
    seed: int
    piece_tokens: int
    checkpoint_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training came to.

    Attributes:
        loss: Of the last step, nats a token.
        tokens: Read in all steps, those before a resumption included.
        halvings: Times that the pieces were halved.
        resumed_at: Steps that were done before, None if it began anew.
    """

    loss: float
    tokens: int
    halvings: int
    resumed_at: int | None


def train(
    model: PeftModel,
    samples: Samples,
    plan: TrainingPlan,
    *,
    checkpoints: Checkpoints | None = None,
    scratch: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """Train an adapter, from its last checkpoint if there is one.

    Args:
        model: From `with_lora`; trained in place, and in eval mode afterwards.
        samples: What the plan's places are of.
        plan: How.
        checkpoints: Where this run's are kept; None keeps none.
        scratch: Directory for files on the way; the system's own unless given.
        on_step: Called after each step with the steps done and the tokens read since the last call.
        should_stop: Asked before every piece of a step, and at every block inside.

    Raises:
        LossNotFinite: The loss became so.
        SampleTooLarge: One row alone does not fit into memory.
        Stopped: `should_stop` said so. The last checkpoint stays.
    """
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".run-", dir=scratch) as directory:
        progress = _Progress(plan, samples, checkpoints, on_step)
        trainer = _StepTrainer(model, samples, plan, Path(directory), progress, should_stop)
        resumed = None if checkpoints is None else checkpoints.restore(Path(directory))
        proxy = cast("PreTrainedModel", model.base_model.model)
        with torch.random.fork_rng(), stopping_at_blocks(proxy, should_stop):
            trainer.train(resume_from_checkpoint=None if resumed is None else str(resumed.path))
    model.eval()
    return Trained(
        loss=trainer.last_loss,
        tokens=sum(progress.tokens_of),
        halvings=trainer.halvings,
        resumed_at=None if resumed is None else resumed.step,
    )


class _StepTrainer(Trainer):
    """Takes the plan's steps, each in pieces."""

    def __init__(
        self,
        model: PeftModel,
        samples: Samples,
        plan: TrainingPlan,
        directory: Path,
        progress: _Progress,
        should_stop: Callable[[], bool],
    ) -> None:
        device = next(model.parameters()).device
        arguments = TrainingArguments(
            output_dir=str(directory),
            max_steps=len(plan.batches),
            learning_rate=plan.learning_rate,
            lr_scheduler_type=SCHEDULER,
            max_grad_norm=LARGEST_GRADIENT,
            weight_decay=0.0,
            seed=plan.seed % 2**32,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            use_cpu=device.type == "cpu",
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)  # noqa: SLF001 - the model is on one device, whatever there is
        super().__init__(model=model, args=arguments, callbacks=[progress])
        self.place_model_on_device = False
        self.remove_callback(PrinterCallback)  # it writes to standard output
        self.last_loss = float("nan")
        self.halvings = 0
        self._samples, self._plan, self._should_stop = samples, plan, should_stop
        self._piece_tokens = plan.piece_tokens
        self._device = device
        self._proxy = cast("PreTrainedModel", model.base_model.model)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The plan's batches, as places."""
        places = range(len(self._samples))
        batches = [batch.tolist() for batch in self._plan.batches]
        return DataLoader(places, batch_sampler=batches, collate_fn=lambda batch: {"places": torch.tensor(batch)})  # type: ignore[arg-type]

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: object = None,  # noqa: ARG002 - Trainer's own
    ) -> torch.Tensor:
        """Forward and backward of one step; its loss."""
        model.train()
        samples = [self._samples[place] for place in inputs["places"].tolist()]
        while True:
            try:
                loss = self._in_pieces(samples)
                break
            except torch.OutOfMemoryError as error:
                model.zero_grad(set_to_none=True)
                self._halve(samples, error)
        self.last_loss = float(loss)
        if not np.isfinite(self.last_loss):
            raise LossNotFinite(self.state.global_step + 1, len(self._plan.batches))
        return loss

    def _in_pieces(self, samples: Sequence[Sample]) -> torch.Tensor:
        labels = sum(sample.loss_tokens for sample in samples)
        total = torch.zeros((), device=self._device)
        for piece in plan_batches(input_lengths(samples), np.arange(len(samples)), self._piece_tokens):
            if self._should_stop():
                raise Stopped
            batch = collate(samples, piece, loss_normalization="sum", device=self._device)
            loss = label_losses(self._proxy, batch).sum() / labels
            torch.autograd.backward(loss)
            total += loss.detach()
        return total

    def _halve(self, samples: Sequence[Sample], error: Exception) -> None:
        lengths = input_lengths(samples)
        longest = int(lengths.max())
        if self._piece_tokens <= longest:
            row = samples[int(lengths.argmax())]
            raise SampleTooLarge(row.row, row.tokens) from error
        # Halve what there was, not a limit that no step came near.
        whole = sum(sample.tokens for sample in samples)
        self._piece_tokens = max(longest, min(self._piece_tokens, whole) // 2)
        self.halvings += 1
        logger.warning("out of memory: steps are taken in pieces of %d tokens", self._piece_tokens)


class _Progress(TrainerCallback):
    """Tells of steps, and has checkpoints made and kept."""

    def __init__(
        self,
        plan: TrainingPlan,
        samples: Samples,
        checkpoints: Checkpoints | None,
        on_step: Callable[[int, int], None] | None,
    ) -> None:
        self.tokens_of = [sum(samples[int(place)].tokens for place in batch) for batch in plan.batches]
        self._plan, self._checkpoints, self._on_step = plan, checkpoints, on_step
        self._saved_at = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> TrainerControl:
        """A checkpoint is due by time: steps take from milliseconds to minutes."""
        del args
        if self._on_step is not None:
            self._on_step(state.global_step, self.tokens_of[state.global_step - 1])
        due = time.monotonic() - self._saved_at >= self._plan.checkpoint_s
        if self._checkpoints is not None and due and state.global_step < state.max_steps:
            control.should_save = True
        return control

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> TrainerControl:
        """Hand the files to the artifact store."""
        if self._checkpoints is not None:
            self._checkpoints.keep(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}", state.global_step)
            self._saved_at = time.monotonic()
        return control
