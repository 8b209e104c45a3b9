"""A sample without its prompt: what the loss of a response is when nothing was asked.

The chat template wraps every prompt in the same tokens: those before the prompt (a system message that the template
itself writes, the user's header) and those after it (the end of the user's turn, the response's header). Only these
stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workers.data.conversation import Conversation
from workers.data.samples import Sample
from workers.data.tokenisation import Encoded

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from spice_rows.conversation import Turn
    from workers.data.tokenisation import ConversationEncoder

    Ids = NDArray[np.int32]

PROBES = ("Who?", "7 is")
"""Two prompts without a token in common: what is equal around both of them is the template's."""


@dataclass(frozen=True, slots=True, eq=False)
class PromptFrame:
    """What a template writes around any prompt.

    Attributes:
        before: Token ids before the prompt, shape (b,), int32.
        after: Token ids between the prompt and the response, shape (a,), int32. Never both empty.
    """

    before: Ids
    after: Ids

    @classmethod
    def of(cls, encoder: ConversationEncoder, tokenizer: PreTrainedTokenizerBase) -> PromptFrame:
        """The frame of a tokenizer's template; a single special token where the template writes none."""
        prompts = [_prompt(encoder, probe) for probe in PROBES]
        shortest = min(map(len, prompts))
        before = _common(prompts[0], prompts[1], shortest)
        after = _common(prompts[0][::-1], prompts[1][::-1], shortest - before)
        if before + after == 0:
            known = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, 0)
            start = next(token for token in known if token is not None)
            return cls(np.array([start], dtype=np.int32), np.zeros(0, dtype=np.int32))
        return cls(prompts[0][:before], prompts[0][len(prompts[0]) - after :])

    def alone(self, sample: Sample, longest: int) -> Sample:
        """The sample's responses in the frame of an empty prompt, with the same tokens under the loss.

        Every response comes after the frame's `after`, the first one also after `before`. What would be longer than
        `longest` tokens, at least 2, loses the beginning of the frame, then the end of the responses.
        """
        mask = sample.loss_mask
        starts = np.flatnonzero(mask & ~np.concatenate([[False], mask[:-1]]))
        ends = np.flatnonzero(mask & ~np.concatenate([mask[1:], [False]])) + 1
        ids, labels = [self.before], [np.zeros(len(self.before), dtype=np.bool_)]
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            carries = np.ones(end - start, dtype=np.bool_)
            carries[0] = start > 0  # the very first token of a sample has no loss, with or without a prompt
            ids += [self.after, sample.input_ids[start:end]]
            labels += [np.zeros(len(self.after), dtype=np.bool_), carries]
        all_ids, all_labels = np.concatenate(ids), np.concatenate(labels)
        start = max(0, min(len(all_ids) - longest, int(all_labels.argmax()) - 1))
        part = slice(start, start + longest)
        return Sample(sample.row, all_ids[part], all_labels[part])


def _prompt(encoder: ConversationEncoder, text: str) -> Ids:
    """The tokens before the response; none where the template refuses a question and its answer."""
    [encoded] = encoder.encode([_asked(text)])
    if not isinstance(encoded, Encoded):
        return np.zeros(0, dtype=np.int32)
    return encoded.input_ids[: int(encoded.loss_mask.argmax())]


def _asked(text: str) -> Conversation:
    turns: list[Turn] = [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes"}]
    return Conversation(turns, [False, True])


def _common(first: Ids, second: Ids, most: int) -> int:
    """How many tokens at the beginning are equal, at most `most`."""
    differs = np.flatnonzero(first[:most] != second[:most])
    return int(differs[0]) if len(differs) else most
