"""Embeddings, ratings and Adam's directions, against values worked out by hand and against transformers itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from tiny_networks import made_up_samples, random_adapter, tiny_model

from app.core.storage.local import LocalArtifacts
from workers.data.samples import Sample
from workers.gradients import less
from workers.gradients.adam_direction import AdamDirection
from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.gradients.features import RATING_PROMPTS, embeddings, of_pool, rating_probabilities
from workers.gradients.less import Plan, checkpoints, directions, learning_rates, less_config, plain_gradients
from workers.gradients.shards import ShardDamaged, ShardStore
from workers.gradients.starting_point import AdamState, StartingPoint
from workers.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workers.gradients.batches import Batch

CONFIG = GradientConfig(rank=3, sketch_dim=64)


def sample(ids: list[int]) -> Sample:
    """A sample whose last token is its response."""
    mask = np.zeros(len(ids), dtype=np.bool_)
    mask[-1] = True
    return Sample(0, np.array(ids, dtype=np.int32), mask)


class Spelling:
    """An engine whose hidden state of token t is (t, 1), whatever is before it."""

    def each(self, samples: list[Sample], run: Callable[[Any], None], _poll: object, ahead: int) -> None:
        for place, one in enumerate(samples):
            ids = torch.tensor(one.input_ids[:-ahead]).unsqueeze(0)
            fields = {"indices": [place], "label_position": [ids.shape[1] - 1]}
            run(type("OneRow", (), {"input_ids": ids, **{name: torch.tensor(value) for name, value in fields.items()}}))

    def states(self, batch: Batch, _poll: object) -> torch.Tensor:
        return torch.stack([batch.input_ids.float(), torch.ones(batch.input_ids.shape)], dim=-1)


def test_later_positions_weigh_more_in_an_embedding() -> None:
    """Tokens 1, 2, 4 weigh 1/6, 2/6, 3/6: e = ((1 + 4 + 12) / 6, 1) = (2.83333, 1), |e| = 3.00463."""
    found = embeddings(cast("GradientEngine", Spelling()), [sample([1, 2, 4]), sample([3, 3])])
    assert found[0] == pytest.approx([0.942990, 0.332820], abs=1e-5)
    assert found[1] == pytest.approx([0.948683, 0.316228], abs=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2"])
def test_embeddings_are_of_the_last_hidden_states_of_each_sample_alone(architecture: str) -> None:
    model, samples = tiny_model(architecture), made_up_samples(7)
    found = embeddings(GradientEngine(model, CONFIG), samples)
    for one, embedding in zip(samples, found, strict=True):
        with torch.no_grad():
            ids = torch.tensor(one.input_ids.astype(np.int64)).unsqueeze(0)
            states = model.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0].double()
        weights = torch.arange(1, len(states) + 1).double()
        summed = (weights / weights.sum()) @ states
        assert embedding == pytest.approx((summed / summed.norm()).numpy(), abs=1e-4)


def test_a_sample_as_long_as_the_model_is_embedded_whole() -> None:
    ids = [5 + place % 50 for place in range(128)]
    found = embeddings(GradientEngine(tiny_model("llama"), CONFIG), [sample(ids)])
    assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-5)


class Letters:
    """A tokenizer of characters: a digit is token 10 to 19, other characters are 20 to 96."""

    def __call__(self, text: str, **_options: object) -> dict[str, list[int]]:
        return {"input_ids": [10 + int(one) if one in "0123456789" else 20 + ord(one) % 77 for one in text]}

    def decode(self, ids: list[int], **_options: object) -> str:
        return "".join("ab"[one % 2] for one in ids)


@pytest.mark.parametrize("architecture", ["llama", "cohere"])
def test_ratings_are_the_probabilities_of_the_digits_after_each_question(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The softmax of the logits at the last position of each question, by the model's own forward pass."""
    monkeypatch.setattr("workers.gradients.features.RATING_PROMPTS", ("Rate.", "Score it."))
    model = tiny_model(architecture)
    row = Sample(3, np.array([4, 5, 6], dtype=np.int32), np.array([False, False, True]))
    found = rating_probabilities(GradientEngine(model, CONFIG), cast("Any", Letters()), [row, row])
    assert found.shape == (2, 2, 5)
    for place, words in enumerate(("Rate.", "Score it.")):
        text = f"{words}\nInstruction:ab\nResponse:a\nThe answer is: \n"
        ids = torch.tensor(Letters()(text)["input_ids"]).unsqueeze(0)
        with torch.no_grad():
            probabilities = model.model(input_ids=ids).logits[0, -1].float().softmax(-1)
        assert found[1, place] == pytest.approx(probabilities[11:16].numpy(), abs=1e-5)


def test_five_questions_are_asked_and_one_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(set(RATING_PROMPTS)) == 5
    monkeypatch.setattr("workers.gradients.features.RATING_PROMPTS", ("How good is it? " * 8,))
    row = Sample(3, np.array([4, 5, 6], dtype=np.int32), np.array([False, False, True]))
    with pytest.raises(ModelError, match="too long for a model of 128 tokens"):
        rating_probabilities(GradientEngine(tiny_model("llama"), CONFIG), cast("Any", Letters()), [row])


def test_digits_that_share_a_token_can_not_be_told_apart() -> None:
    def tokenizer(_text: str, **_options: object) -> dict[str, list[int]]:
        return {"input_ids": [7]}

    with pytest.raises(ModelError, match="digits 1 to 5"):
        rating_probabilities(GradientEngine(tiny_model("llama"), CONFIG), cast("Any", tokenizer), made_up_samples(1))


def test_adams_direction_of_one_gradient() -> None:
    """m 0.2, v 0.04 after one step, gradient 0.5.

    m' = 0.18 + 0.05 = 0.23, / (1 - 0.81) = 1.210526; v' = 0.03996 + 0.00025 = 0.04021, / (1 - 0.998001) = 20.115058,
    whose root is 4.484981: 0.269907.
    """
    direction = AdamDirection(torch.tensor([[0.2]]), torch.tensor([[0.04]]), steps=1)
    assert float(direction(torch.tensor([[[0.5]]]))) == pytest.approx(0.269907, abs=1e-5)


def test_the_engine_takes_adams_direction_of_whole_gradients() -> None:
    """Gradients of the same engine without Adam's state, made into steps by the formula in float64."""
    model, samples = tiny_model("llama"), made_up_samples(3)
    adapter = random_adapter(model.model)
    config = GradientConfig(adapter=adapter.revision, sketch_dim=64)
    plain = GradientEngine(model, config, StartingPoint(adapter)).gradients(samples)
    random = torch.Generator().manual_seed(0)
    first = {part: 0.01 * torch.randn(values.shape[1:], generator=random) for part, values in plain.items()}
    second = {part: 0.01 * torch.rand(values.shape[1:], generator=random) for part, values in plain.items()}
    start = StartingPoint(adapter, adam=AdamState(first, second, 4))
    found = GradientEngine(model, replace(config, preconditioner="adam"), start).gradients(samples)
    for part, gradient in plain.items():
        m = (0.9 * first[part] + 0.1 * gradient).double() / (1 - 0.9**5)
        v = (0.999 * second[part] + 0.001 * gradient**2).double() / (1 - 0.999**5)
        assert torch.allclose(found[part].double(), m / (v.sqrt() + 1e-8), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shared", ["a block", "a weight"])
def test_less_is_refused_where_a_layer_is_used_twice_in_a_pass(shared: str) -> None:
    """Hooks see each use, and Adam's direction of the sum of both is not the sum of the directions of both."""
    model, samples = tiny_model("llama"), made_up_samples(30)
    blocks: Any = model.model.get_submodule("model.layers")
    if shared == "a block":
        blocks[1] = blocks[0]
    else:
        blocks[0].self_attn.v_proj = blocks[0].self_attn.k_proj
    config = less_config(CONFIG)
    made = checkpoints(model, config, samples)
    with pytest.raises(ModelError, match=r"selection.method: less .* model.layers.0.* more than once in a pass"):
        directions(model, config, made, samples[:2])
    assert np.isfinite(plain_gradients(model, config, made, samples[:2])).all(), "a plain gradient is the sum"
    if shared == "a weight":
        rest = replace(config, layers=("o_proj", "down_proj"))
        assert np.isfinite(directions(model, rest, checkpoints(model, rest, samples), samples[:2])).all()


def test_learning_rates_rise_and_fall_as_those_of_transformers() -> None:
    """Four steps, of which ceil(0.12) = 1 rises from 0: 0, 3/3, 2/3, 1/3 of 2e-5."""
    assert learning_rates(4) == pytest.approx([0.0, 2e-5, 2e-5 * 2 / 3, 2e-5 / 3], abs=1e-12)


def test_a_warm_up_has_a_twentieth_of_the_rows_and_four_epochs() -> None:
    """320 rows: 16 of them, in 4 steps of 4; 100,000: 5,000 of them, in 40 steps of 128.

    Of 16 steps the first rises from 0, and step t has (16 - t) / 15 of 2e-5: the epochs' means are 0.7, 0.7, 0.433333
    and 0.166667 of it.
    """
    assert (Plan.of(320).samples, Plan.of(320).batch, Plan.of(320).rates.shape) == (16, 4, (4, 4))
    assert (Plan.of(100_000).samples, Plan.of(100_000).batch, Plan.of(100_000).rates.shape) == (5000, 128, (4, 40))
    assert Plan.of(1).rates.shape == (4, 1)
    assert Plan.of(320).of_epochs == pytest.approx([1.4e-5, 1.4e-5, 0.866667e-5, 0.333333e-5], rel=1e-5)


def test_checkpoints_are_stored_once_and_rows_are_unit_vectors_at_each(tmp_path: Path) -> None:
    model, samples = tiny_model("llama"), made_up_samples(40)
    config, artifacts = less_config(CONFIG), LocalArtifacts(tmp_path)
    made = checkpoints(model, config, samples)
    assert len(made) == 4
    stored = less.shared_checkpoints(artifacts, "ab" * 32, "cd" * 16, lambda: made)
    again = less.shared_checkpoints(artifacts, "ab" * 32, "cd" * 16, lambda: pytest.fail("they are there"))
    rows = directions(model, config, stored, samples[:5])
    assert rows.shape == (5, 4, 64)
    assert np.linalg.norm(rows, axis=2) == pytest.approx(np.ones((5, 4)), abs=1e-5)
    assert np.array_equal(rows, directions(model, config, again, samples[:5]))
    targets = plain_gradients(model, config, stored, samples[5:7])
    assert np.linalg.norm(targets, axis=2) == pytest.approx(np.ones((2, 4)), abs=1e-5)


def test_features_are_kept_by_row_and_damage_is_noticed(tmp_path: Path) -> None:
    digests = np.arange(10, dtype=np.uint64).reshape(5, 2)
    artifacts = LocalArtifacts(tmp_path)
    store = ShardStore(artifacts, "ab" * 32, digests=digests, sketch_dim=4, shard_rows=3)
    assert store.missing_features([]) == []
    assert store.missing_features(["embedding"]) == [0, 1]
    values = np.arange(10, dtype=np.float32).reshape(5, 2)
    for shard in (0, 1):
        places = store.wanted(shard, "embedding")
        assert places.tolist() == list(store.rows(shard))
        store.write_feature("embedding", places, values[places])
        assert not len(store.wanted(shard, "embedding"))
    assert store.missing_features(["embedding"], verify=True) == []
    assert store.missing_features(["embedding", "rating"]) == [0, 1]
    assert np.array_equal(in_order(store), values)
    with pytest.raises(ValueError, match="a file of 2 rows has 3 of feature"):
        store.write_feature("embedding", np.array([3, 4]), values[:3])

    shuffled = ShardStore(artifacts, "ab" * 32, digests=digests[[4, 0, 0, 3]], sketch_dim=4, shard_rows=3)
    assert shuffled.missing_features(["embedding"]) == []
    assert np.array_equal(in_order(shuffled), values[[4, 0, 0, 3]])
    assert shuffled.missing_features([of_pool("influence", shuffled.dataset)]) == [0, 1]

    (damaged,) = (
        path for path in tmp_path.rglob("embedding_1-*.safetensors") if b"\x00\x00\x10\x41" in path.read_bytes()
    )
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x01")  # 9.0, of the second shard, is another number
    with pytest.raises(ShardDamaged):
        in_order(store)
    assert store.missing_features(["embedding"], verify=True) == [1]


def in_order(store: ShardStore) -> np.ndarray:
    """The embeddings of all samples."""
    found = np.full((store.samples, 2), np.nan, dtype=np.float32)
    for places, values in store.feature_tiles("embedding"):
        found[places] = values
    return found
