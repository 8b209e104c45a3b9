"""How a model scores held-out rows, item by item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from workers.data.stopping import Stopped
from workers.gradients.batches import collate, input_lengths, plan_batches
from workers.training.logits import label_losses
from workers.training.stopping import stopping_at_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from workers.data.samples import Sample


@dataclass(frozen=True, slots=True)
class Passes:
    """Forward passes of one model.

    Attributes:
        model: In eval mode, with or without an adapter.
        token_budget: Positions of a pass at most, padding included; a longer row goes alone.
        should_stop: Asked before every pass, and at every block inside.
    """

    model: PreTrainedModel
    token_budget: int
    should_stop: Callable[[], bool] = lambda: False

    @torch.inference_mode()
    def losses(self, samples: Sequence[Sample], on_rows: Callable[[int], None] = lambda _: None) -> NDArray[np.float64]:
        """Loss of each sample's response, summed over its tokens, in nats, shape (n,).

        Raises:
            Stopped: `should_stop` said so.
        """
        totals = np.empty(len(samples), dtype=np.float64)
        for piece in plan_batches(input_lengths(samples), np.arange(len(samples)), self.token_budget):
            if self.should_stop():
                raise Stopped
            batch = collate(samples, piece, loss_normalization="sum", device=self.model.device)
            with stopping_at_blocks(self.model, self.should_stop):
                by_label = label_losses(self.model, batch).double()
            by_row = torch.zeros(len(piece), dtype=torch.float64, device=by_label.device)
            totals[piece] = by_row.index_add_(0, batch.label_row, by_label).cpu().numpy()
            on_rows(len(piece))
        return totals

    def losses_per_token(
        self, samples: Sequence[Sample], on_rows: Callable[[int], None] = lambda _: None
    ) -> NDArray[np.float64]:
        """Mean loss of each sample's response tokens, in nats, shape (n,)."""
        tokens = np.array([sample.loss_tokens for sample in samples], dtype=np.float64)
        per_token: NDArray[np.float64] = self.losses(samples, on_rows) / tokens
        return per_token

    def choices(
        self, options: Sequence[Sample], item: NDArray[np.int64], right: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """1 for each item whose likeliest option is the right one, else 0; shape (items,).

        Args:
            options: All options of all items, item by item, each as the row with that response.
            item: The item of each option, from 0, ascending.
            right: Which options are right, one an item.
        """
        likelihood = -self.losses(options)
        order = np.lexsort((np.arange(len(item)), -likelihood, item))  # of equals the first
        firsts = order[np.searchsorted(item, np.arange(int(item[-1]) + 1))]
        return right[firsts].astype(np.float64)

    @torch.inference_mode()
    def exact_matches(
        self, samples: Sequence[Sample], tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> NDArray[np.float64]:
        """1 for each sample whose last response is what the model goes on with, else 0; shape (n,).

        The continuation is greedy and ends with an end-of-sequence token or after `max_tokens`. White space around both
        does not count, nor do special tokens.
        """
        turns = [last_turn(sample) for sample in samples]
        wanted = [_text(tokenizer, response) for _, response in turns]
        ends = _end_tokens(self.model, tokenizer, [response for _, response in turns])
        lengths = np.array([len(prompt) for prompt, _ in turns]) + max_tokens
        scores = np.empty(len(samples))
        for piece in plan_batches(lengths, np.arange(len(samples)), self.token_budget):
            if self.should_stop():
                raise Stopped
            with stopping_at_blocks(self.model, self.should_stop):
                found = self._continued([turns[place][0] for place in piece.tolist()], max_tokens, ends)
            for place, tokens in zip(piece.tolist(), found, strict=True):
                scores[place] = _text(tokenizer, tokens) == wanted[place]
        return scores

    def _continued(
        self, prompts: Sequence[NDArray[np.int64]], max_tokens: int, ends: list[int]
    ) -> Sequence[NDArray[np.int64]]:
        longest = max(len(prompt) for prompt in prompts)
        ids = np.full((len(prompts), longest), ends[0], dtype=np.int64)
        mask = np.zeros_like(ids)
        for line, seen, prompt in zip(ids, mask, prompts, strict=True):
            line[longest - len(prompt) :] = prompt
            seen[longest - len(prompt) :] = 1
        device = self.model.device
        generated = self.model.generate(  # type: ignore[operator]
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=torch.from_numpy(mask).to(device),
            max_new_tokens=max_tokens,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=ends,
            pad_token_id=ends[0],
        )
        return [_until(line, ends) for line in generated[:, longest:].cpu().numpy()]


def last_turn(sample: Sample) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What stands before the last response of a sample, and the response: token ids."""
    labelled = np.flatnonzero(sample.loss_mask)
    start = max(1, int(labelled[_last_run(labelled)]))
    end = int(labelled[-1]) + 1
    ids = sample.input_ids.astype(np.int64)
    return ids[:start], ids[start:end]


def _last_run(labelled: NDArray[np.int64]) -> int:
    """Where the last run of consecutive numbers begins."""
    gaps = np.flatnonzero(np.diff(labelled) > 1)
    return int(gaps[-1]) + 1 if gaps.size else 0


def _text(tokenizer: PreTrainedTokenizerBase, ids: NDArray[np.int64]) -> str:
    return str(tokenizer.decode(ids.tolist(), skip_special_tokens=True)).strip()


def _until(tokens: NDArray[np.int64], ends: list[int]) -> NDArray[np.int64]:
    found = np.flatnonzero(np.isin(tokens, ends))
    return tokens[: found[0]] if found.size else tokens


def _end_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, responses: Sequence[NDArray[np.int64]]
) -> list[int]:
    """The tokens that end a response: the model's own, and a special one that the template writes there."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    own = configured if isinstance(configured, list) else [configured]
    special = set(tokenizer.all_special_ids)
    written = {int(response[-1]) for response in responses if len(response)} & special
    found = sorted({token for token in (*own, tokenizer.eos_token_id) if token is not None} | written)
    return found or [0]
