"""A LoRA run: it learns, leaves the model as it was, goes on where it was, and fits into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from app.core.storage.local import LocalArtifacts
from workers.data.stopping import Stopped
from workers.models.errors import SampleTooLarge
from workers.training import trainer
from workers.training.checkpoints import Checkpoints
from workers.training.lora import with_lora
from workers.training.scoring import Passes
from workers.training.steps import count_steps, linear_rates, rows_of_steps
from workers.training.trainer import LossNotFinite, Trained, TrainingPlan, train

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import PreTrainedModel

    from workers.data.samples import Sample

EPOCHS, STEPS = 3, 12


def _plan(samples: list[Sample], **changed: Any) -> TrainingPlan:
    batches = rows_of_steps(len(samples), epochs=EPOCHS, steps=STEPS, seed=5)
    return TrainingPlan(**{"batches": batches, "learning_rate": 0.02, "seed": 5, "piece_tokens": 1000, **changed})


def _run(
    model: PreTrainedModel, samples: list[Sample], plan: TrainingPlan, **arguments: Any
) -> tuple[Trained, dict[str, torch.Tensor], np.ndarray[Any, Any]]:
    """What the training came to, the adapter, and the losses of the rows afterwards."""
    with with_lora(model, rank=4, seed=plan.seed) as adapted:
        trained = train(adapted, samples, plan, **arguments)
        weights = {name: value.clone() for name, value in adapted.state_dict().items() if "lora_" in name}
        return trained, weights, Passes(model, 1000).losses_per_token(samples)


@pytest.fixture(scope="module")
def straight(model_as_made: PreTrainedModel, samples: list[Sample]) -> dict[str, torch.Tensor]:
    """The adapter of the plan, trained in one go with room for every batch."""
    return _run(model_as_made, samples, _plan(samples))[1]


def test_a_run_lowers_the_loss_and_leaves_the_model_as_it_was(model: PreTrainedModel, samples: list[Sample]) -> None:
    before = Passes(model, 1000).losses_per_token(samples)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    trained, _, after = _run(
        model, samples, _plan(samples, batches=rows_of_steps(len(samples), epochs=20, steps=80, seed=0))
    )
    assert after.mean() < before.mean() - 0.05
    assert trained.tokens == 20 * sum(sample.tokens for sample in samples)
    assert {name for name, _ in model.named_parameters()} <= set(weights)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    np.testing.assert_array_equal(Passes(model, 1000).losses_per_token(samples), before)


def test_the_same_seed_gives_the_same_adapter_and_another_one_another(
    model: PreTrainedModel, samples: list[Sample], straight: dict[str, torch.Tensor]
) -> None:
    _, again, _ = _run(model, samples, _plan(samples))
    _, other, _ = _run(model, samples, _plan(samples, seed=6))
    assert all(torch.equal(straight[name], again[name]) for name in straight)
    assert not all(torch.equal(straight[name], other[name]) for name in straight)


def test_pieces_add_up_to_the_step(
    model: PreTrainedModel, samples: list[Sample], straight: dict[str, torch.Tensor]
) -> None:
    _, pieces, _ = _run(model, samples, _plan(samples, piece_tokens=12))
    for name, value in straight.items():
        torch.testing.assert_close(pieces[name], value, rtol=1e-3, atol=1e-5)


def test_a_run_that_was_stopped_goes_on_from_its_checkpoint_to_the_same_adapter(
    model: PreTrainedModel, samples: list[Sample], straight: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    artifacts = LocalArtifacts(tmp_path / "store")
    checkpoints = Checkpoints(artifacts, "runs/a/checkpoint/")
    done: list[int] = []
    plan = _plan(samples, checkpoint_s=0.0)
    with pytest.raises(Stopped):
        _run(
            model,
            samples,
            plan,
            checkpoints=checkpoints,
            scratch=tmp_path / "scratch",
            on_step=lambda step, _: done.append(step),
            should_stop=lambda: len(done) >= 7,
        )
    assert list((tmp_path / "scratch").iterdir()) == []
    trained, resumed, _ = _run(model, samples, plan, checkpoints=checkpoints, on_step=lambda step, _: done.append(step))
    assert trained.resumed_at == 7
    assert done == list(range(1, STEPS + 1)), "no step is taken twice"
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert len({stored.name.split("/")[3] for stored in artifacts.list("runs/a/checkpoint/")}) == 2  # index and files
    checkpoints.drop()
    assert list(artifacts.list("runs/")) == []


@pytest.mark.parametrize("asked", range(5))
def test_a_run_stops_inside_a_pass(model: PreTrainedModel, samples: list[Sample], asked: int) -> None:
    """Before the only piece of the first step, at either block forwards, at either block backwards."""
    calls = []

    def should_stop() -> bool:
        calls.append(None)
        return len(calls) > asked

    steps: list[int] = []
    with pytest.raises(Stopped):
        _run(model, samples, _plan(samples), should_stop=should_stop, on_step=lambda step, _: steps.append(step))
    assert (len(calls), steps) == (asked + 1, [])
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_damaged_checkpoint_is_not_gone_on_from(
    model: PreTrainedModel, samples: list[Sample], tmp_path: Path
) -> None:
    artifacts = LocalArtifacts(tmp_path)
    checkpoints = Checkpoints(artifacts, "a/")
    _run(model, samples, _plan(samples, checkpoint_s=0.0), checkpoints=checkpoints)
    [name] = [stored.name for stored in artifacts.list("a/") if stored.name.endswith("optimizer.pt")]
    artifacts.write(name, (artifacts.read(name) or b"")[:-1])
    trained, _, _ = _run(model, samples, _plan(samples), checkpoints=checkpoints)
    assert trained.resumed_at is None


def test_a_step_that_does_not_fit_is_taken_in_halves(
    model: PreTrainedModel,
    samples: list[Sample],
    straight: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _limit_memory(monkeypatch, 24)
    trained, halved, _ = _run(model, samples, _plan(samples))
    assert trained.halvings >= 1
    for name, value in straight.items():
        torch.testing.assert_close(halved[name], value, rtol=1e-3, atol=1e-5)


def test_a_row_that_does_not_fit_alone_is_named(
    model: PreTrainedModel, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    _limit_memory(monkeypatch, 4)
    with pytest.raises(SampleTooLarge, match="max_length"):
        _run(model, samples, _plan(samples))


def test_a_loss_that_is_no_number_ends_the_run_by_its_step(model: PreTrainedModel, samples: list[Sample]) -> None:
    with pytest.raises(LossNotFinite, match=r"step \d+ of 12"):
        _run(model, samples, _plan(samples, learning_rate=1e38))


def test_the_loss_of_a_row_is_the_cross_entropy_of_its_response(model: PreTrainedModel, samples: list[Sample]) -> None:
    found = Passes(model, 30).losses_per_token(samples)
    for sample, loss in zip(samples, found, strict=True):
        ids = torch.from_numpy(sample.input_ids.astype(np.int64))
        logits = model(input_ids=ids[None]).logits[0, :-1]
        mask = torch.from_numpy(sample.loss_mask[1:])
        assert loss == pytest.approx(float(cross_entropy(logits[mask], ids[1:][mask])), rel=1e-5)


@given(rows=st.integers(1, 40), epochs=st.integers(1, 4), steps=st.integers(1, 60), seed=st.integers(0, 2**40))
def test_every_row_is_seen_once_an_epoch_in_steps_of_even_size(rows: int, epochs: int, steps: int, seed: int) -> None:
    batches = rows_of_steps(rows, epochs=epochs, steps=steps, seed=seed)
    assert len(batches) == min(steps, rows * epochs)
    assert {len(batch) for batch in batches} <= {rows * epochs // len(batches), rows * epochs // len(batches) + 1}
    order = np.concatenate(batches).reshape(epochs, rows)
    assert all(sorted(epoch.tolist()) == list(range(rows)) for epoch in order)


def test_steps_are_counted_by_tokens() -> None:
    assert count_steps(10_000, 3, 4096) == 7  # 30,000 / 4096 = 7.3
    assert count_steps(10, 1, 4096) == 1


def _limit_memory(monkeypatch: pytest.MonkeyPatch, positions: int) -> None:
    """A device that holds a batch of so many positions."""
    plain: Callable[..., torch.Tensor] = trainer.label_losses

    def limited(model: PreTrainedModel, batch: Any) -> torch.Tensor:
        if batch.input_ids.numel() > positions:
            raise torch.OutOfMemoryError("no room")
        return plain(model, batch)

    monkeypatch.setattr(trainer, "label_losses", limited)


@pytest.mark.parametrize(
    ("steps", "ratio", "expected"),
    [
        (1, 0.03, [1.0]),
        (4, 0.0, [1.0, 0.75, 0.5, 0.25]),
        (5, 0.4, [0.5, 1.0, 1.0, 2 / 3, 1 / 3]),
        (2, 1.0, [0.5, 1.0]),
        (0, 0.03, []),
    ],
)
def test_rates_rise_and_fall_in_lines(steps: int, ratio: float, expected: list[float]) -> None:
    rates = linear_rates(steps, largest=0.2, warmup_ratio=ratio)
    assert rates.tolist() == pytest.approx([0.2 * one for one in expected])
