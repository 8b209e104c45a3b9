"""The gradient of a pair is that of its DPO loss, with the model as its own reference."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from autograd_reference import sample_loss
from tiny_networks import made_up_samples, tiny_model

from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.gradients.pairs import BETA

if TYPE_CHECKING:
    from workers.data.samples import Sample
    from workers.gradients.passes import BatchDone

LAYERS = ("q_proj", "down_proj")


def pairs_of(count: int) -> list[Sample]:
    chosen, rejected = made_up_samples(count, seed=1), made_up_samples(count, seed=2)
    return [replace(one, rejected=other) for one, other in zip(chosen, rejected, strict=True)]


def dpo_gradient(pair: Sample) -> dict[str, torch.Tensor]:
    """By autograd, from the loss as the paper writes it, with a reference that is a copy of the model."""
    model = copy.deepcopy(tiny_model("llama").model).eval()
    reference = copy.deepcopy(model)
    assert pair.rejected is not None
    with torch.no_grad():
        anchors = [-sample_loss(reference, one) for one in (replace(pair, rejected=None), pair.rejected)]
    chosen, rejected = (-sample_loss(model, one) for one in (replace(pair, rejected=None), pair.rejected))
    margin = (chosen - anchors[0]) - (rejected - anchors[1])
    loss = -torch.nn.functional.logsigmoid(BETA * margin)
    assert float(loss) == pytest.approx(math.log(2), abs=1e-5)
    loss.backward()
    return {
        name.removesuffix(".weight"): parameter.grad
        for name, parameter in model.named_parameters()
        if name.split(".")[-2] in LAYERS and parameter.grad is not None
    }


def test_it_is_what_autograd_gives() -> None:
    model = tiny_model("llama")
    engine = GradientEngine(model, GradientConfig(target="linear", layers=LAYERS, sketch_dim=64))
    for pair in pairs_of(4):
        assert pair.rejected is not None
        both = engine.gradients([replace(pair, rejected=None), pair.rejected])
        expected = dpo_gradient(pair)
        assert set(both) == set(expected)
        for name, gradient in expected.items():
            ours = BETA / 2 * (both[name][0] - both[name][1])
            assert torch.allclose(ours, gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))


def test_its_sketch_is_the_sketch_of_that_difference() -> None:
    engine = plain = GradientEngine(tiny_model("llama"), GradientConfig(sketch_dim=64, rank=2))
    pairs = pairs_of(9)
    told: list[BatchDone] = []
    found = engine.sketch(pairs, on_batch=told.append)
    chosen = plain.sketch([replace(pair, rejected=None) for pair in pairs]).values
    rejected = plain.sketch([pair.rejected for pair in pairs if pair.rejected is not None]).values
    expected = BETA / 2 * (chosen - rejected)
    np.testing.assert_allclose(found.values, expected, rtol=2e-4, atol=1e-5 * float(np.abs(expected).max()))
    np.testing.assert_allclose(found.losses, math.log(2), rtol=1e-6)
    assert sum(batch.samples for batch in told) == len(pairs)
