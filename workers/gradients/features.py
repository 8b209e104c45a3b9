"""What a model makes of whole samples by forward passes alone: embeddings, and how it rates them.

Both are kept by row as sketches are, beside them, and computed where a selection asks for them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch

from workers.data.samples import Sample
from workers.gradients.passes import never
from workers.models.architecture import longest_input
from workers.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from workers.gradients.batches import Batch
    from workers.gradients.engine import GradientEngine

Feature = Literal["embedding", "rating", "influence"]
"""``embedding``: (n, H); ``rating``: (n, prompts, digits); ``influence``: Adam's directions, (n, checkpoints, p), as
`workers.gradients.less` has them. All float32."""
FEATURES: tuple[Feature, ...] = get_args(Feature)
VERSIONS = {"embedding": 1, "rating": 1, "influence": 1, "gradient": 1}
"""Raised where the same samples would get other numbers."""

DIGITS = "12345"
RATING_PROMPTS = (
    "Rate from 1 to 5 how accurately the response follows the instruction. Give the score alone.",
    "How well does the response do what the instruction asks for? Answer with a score from 1 to 5 and nothing else.",
    "Score the response from 1 to 5, 5 for one that does precisely what is asked. Write the score on its own line.",
    "Judge how correct the response to the instruction is, and give it a grade from 1 (poor) to 5 (excellent).",
    "On a scale of 1 to 5, how good is the response to the instruction below? State only the number.",
)
"""Five ways to ask for a rating, as SelectIT wants them; the words are ours."""
RATED = "\nInstruction:{prompt}\nResponse:{response}\nThe answer is: \n"


def of_pool(feature: str, pool: str) -> str:
    """Name of a feature that depends on the rows of a pool besides its own row, as on a warm-up over them.

    Args:
        feature: ``influence``, or ``gradient``, which target rows have for it.
        pool: What `ShardStore.dataset` calls the rows.
    """
    return f"{feature}_of_{pool}"


def files_of(feature: str) -> str:
    """What the files of a feature are called in the store, by its name: of another version, by another name."""
    what, _, pool = feature.partition("_of_")
    return f"{what}_{VERSIONS[what]}" + (f"-{pool}" if pool else "")


def embeddings(
    engine: GradientEngine, samples: Sequence[Sample], poll: Callable[[], None] = never
) -> NDArray[np.float32]:
    """The mean of the last layer's hidden states, later positions weighing more, as unit vectors; (n, H), float32.

    e = sum_i (i / sum_i i) h_i over the positions i = 1 to T of a sample, then e / |e|: as RDS+ and SGPT have it. Of a
    pair, the preferred response's.

    Args:
        engine: Has the model, and the adapter that samples are scored with.
        samples: What to embed.
        poll: Called at every layer with an adapter and before every batch; what it raises ends the work.
    """
    found: list[torch.Tensor | None] = [None] * len(samples)

    def run(batch: Batch) -> None:
        states = engine.states(batch, poll).float()
        lengths = batch.label_position + 1
        positions = torch.arange(1, states.shape[1] + 1, device=states.device)
        weights = torch.where(positions <= lengths.unsqueeze(1), positions, 0).float()
        summed = torch.einsum("bt,bth->bh", weights / weights.sum(dim=1, keepdim=True), states)
        units = torch.nn.functional.normalize(summed, dim=1).cpu()
        for place, unit in zip(batch.indices.tolist(), units, strict=True):
            found[place] = unit

    engine.each([_whole(sample) for sample in samples], run, poll, ahead=1)
    return torch.stack([unit for unit in found if unit is not None]).numpy()


def rating_probabilities(
    engine: GradientEngine,
    tokenizer: PreTrainedTokenizerBase,
    samples: Sequence[Sample],
    poll: Callable[[], None] = never,
) -> NDArray[np.float32]:
    """Probability of each digit after each of five questions how good a sample is; (n, 5, 5), float32.

    The sample is shown as the text of its tokens. What is too long for the model loses the end of its response.

    Args:
        engine: As for `embeddings`.
        tokenizer: The model's.
        samples: What to rate.
        poll: As for `embeddings`.

    Raises:
        ModelError: Two digits are one token, or the model is too short for the questions.
    """
    digits = torch.tensor(_digit_tokens(tokenizer))
    asked = [
        _question(tokenizer, sample, words, longest_input(engine.model.config))
        for sample in samples
        for words in RATING_PROMPTS
    ]
    found = torch.zeros(len(asked), len(digits))

    def run(batch: Batch) -> None:
        rows, count = len(batch.indices), len(digits)
        each = torch.arange(rows, device=batch.input_ids.device).repeat_interleave(count)
        wanted = digits.to(each.device)
        of_digits = replace(
            batch,
            label_row=each,
            label_position=batch.label_position[each],
            label_slot=torch.arange(count, device=each.device).repeat(rows),
            targets=wanted.repeat(rows),
            weights=batch.weights.new_ones(rows * count),
            label_width=count,
        )
        losses = engine.label_losses(of_digits, poll)
        found[batch.indices.cpu()] = (-losses).exp().view(rows, count).cpu()

    engine.each(asked, run, poll, ahead=1)
    return found.view(len(samples), len(RATING_PROMPTS), len(digits)).numpy()


def _whole(sample: Sample) -> Sample:
    """The sample with one more token under the loss, so that the model reads all of its own."""
    mask = np.zeros(len(sample.input_ids) + 1, dtype=np.bool_)
    mask[-1] = True
    return Sample(sample.row, np.append(sample.input_ids, sample.input_ids[0]), mask)


def _question(tokenizer: PreTrainedTokenizerBase, sample: Sample, words: str, longest: int | None) -> Sample:
    """A question about a sample, with one more token under the loss."""
    prompt, response = (
        str(tokenizer.decode(sample.input_ids[part].tolist(), skip_special_tokens=True)).strip()
        for part in (~sample.loss_mask, sample.loss_mask)
    )
    ids = _encoded(tokenizer, words + RATED.format(prompt=prompt, response=response))
    end = _encoded(tokenizer, RATED.rpartition("}")[2])
    if longest is not None and len(ids) > longest:
        if longest <= len(_encoded(tokenizer, words)) + len(end):
            raise ModelError(f"selection: selectit asks questions that are too long for a model of {longest} tokens")
        ids = [*ids[: longest - len(end)], *end]
    return _whole(Sample(sample.row, np.array(ids, dtype=np.int32), np.ones(len(ids), dtype=np.bool_)))


def _encoded(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    found: list[int] = tokenizer(text, verbose=False)["input_ids"]
    return found


def _digit_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token of each digit: the last one where the tokenizer puts something before it."""
    tokens = [int(tokenizer(digit, add_special_tokens=False)["input_ids"][-1]) for digit in DIGITS]
    if len(set(tokens)) < len(tokens):
        raise ModelError(
            "model.uri: its tokenizer has no tokens of their own for the digits 1 to 5, by which selectit rates"
        )
    return tokens
