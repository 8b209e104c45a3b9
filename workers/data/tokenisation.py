"""Turn conversations into token ids and the mask of the tokens that carry loss."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tokenizers
import transformers

from workers.data.chat_template import ChatTemplate, Rendered
from workers.data.errors import DatasetError
from workers.data.rejection import Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from workers.data.conversation import Message
    from workers.data.template_server import TemplateLimits


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation as the model's input.

    Attributes:
        input_ids: Shape (T,), T at most ``max_length``.
        loss_mask: Shape (T,); True on tokens of a response, its end-of-turn token included.
        truncated: Whether tokens that carry loss were cut off on the right.
    """

    input_ids: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]
    truncated: bool


class ConversationEncoder:
    """Renders and tokenises with one tokenizer and one length limit."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, max_length: int, limits: TemplateLimits | None = None
    ) -> None:
        """Prepare.

        Args:
            tokenizer: A fast tokenizer: the mask is drawn from its character offsets.
            max_length: Tokens of a sample, at least 2.
            limits: What the chat template may take.

        Raises:
            DatasetError: ``tokenizer_not_fast``, ``chat_template_broken``.
        """
        if max_length < 2:  # noqa: PLR2004 - a prefix and a response token
            raise ValueError(f"max_length is {max_length}, but a sample needs at least 2 tokens")
        if not tokenizer.is_fast:
            raise DatasetError(
                "tokenizer_not_fast",
                f"{type(tokenizer).__name__} gives no character offsets: save the model with a tokenizer.json",
            )
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer, limits)
        self._max_length = max_length

    def fingerprint(self) -> str:
        """Hex digest of all that decides how a conversation becomes tokens; equal across processes."""
        backend = json.loads(self._tokenizer.backend_tokenizer.to_str())
        for call_state in ("truncation", "padding"):  # what somebody's last call left behind
            backend.pop(call_state, None)
        parts = {
            "tokenizer": backend,
            "template": self._template.source,
            "special_tokens": {name: str(token) for name, token in self._tokenizer.special_tokens_map.items()},
            "max_length": self._max_length,
            "versions": [transformers.__version__, tokenizers.__version__],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def encode(self, conversations: Sequence[Sequence[Message]]) -> list[Encoded | Reason]:
        """Encode a batch; one result for each conversation, in order, independent of its neighbours."""
        rendered = self._template.render(conversations)
        texts = [one.text for one in rendered if isinstance(one, Rendered)]
        if not texts:
            return [one for one in rendered if isinstance(one, Reason)]
        # The template has written the special tokens into the text; adding them here would double the first one.
        tokenised = self._tokenise(texts)
        return [one if isinstance(one, Reason) else self._cut(one, *next(tokenised)) for one in rendered]

    def spell(self, messages: Sequence[Message]) -> tuple[Encoded, list[str]] | Reason:
        """Encode one conversation and say which text each of its tokens stands for.

        Returns:
            The tokens and as many pieces; joined, the pieces are the text that the template wrote, up to the cut. A
            piece is empty where several tokens spell one character: the first of them has it.
        """
        [rendered] = self._template.render([messages])
        if isinstance(rendered, Reason):
            return rendered
        ids, offsets = next(self._tokenise([rendered.text]))
        encoded = self._cut(rendered, ids, offsets)
        if isinstance(encoded, Reason):
            return encoded
        ends = np.maximum.accumulate([end for _, end in offsets[: len(encoded.input_ids)]]).tolist()
        return encoded, [rendered.text[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def _tokenise(self, texts: list[str]) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
        """Ids and character offsets of each text."""
        batch = self._tokenizer(
            texts,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return zip(batch["input_ids"], batch["offset_mapping"], strict=True)

    def _cut(self, rendered: Rendered, ids: list[int], offsets: list[tuple[int, int]]) -> Encoded | Reason:
        mask = response_mask(np.asarray(offsets, dtype=np.int64).reshape(-1, 2), rendered)
        if not mask[1:].any():
            return Reason.EMPTY_RESPONSE
        kept = mask[: self._max_length]
        if not kept[1:].any():
            return Reason.RESPONSE_TRUNCATED
        input_ids = np.asarray(ids[: self._max_length], dtype=np.int32)
        return Encoded(input_ids, kept, truncated=bool(mask[self._max_length :].any()))


def response_mask(offsets: NDArray[np.int64], rendered: Rendered) -> NDArray[np.bool_]:
    """Which tokens belong to a response.

    A token may join the end of the header with the beginning of the response ("Answer: " and "Paris" give
    " Paris"). It is the response's if it spells any of it; joined white space alone stays the header's.

    Args:
        offsets: Shape (T, 2): first and last + 1 character of each token. Tokens of white space that the tokenizer
            leaves out of its offsets have no width.
        rendered: The text and where its responses are.

    Returns:
        Shape (T,).
    """
    starts, ends = offsets[:, 0], offsets[:, 1]
    mask = np.zeros(len(offsets), dtype=np.bool_)
    for first, last in rendered.responses:
        response = rendered.text[first:last]
        visible = first + len(response) - len(response.lstrip())
        mask |= (starts < last) & (ends > first) & ((starts >= first) | (ends > visible))
    return mask
