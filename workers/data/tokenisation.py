"""Turn conversations into token ids and the mask of the tokens that carry loss."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tokenizers
import transformers

from workers.data.chat_template import ChatTemplate, Rendered
from workers.data.errors import DatasetError
from workers.data.rejection import Reason, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from workers.data.conversation import Conversation
    from workers.data.template_server import TemplateLimits


@dataclass(frozen=True, slots=True)
class Encoded:
    """A conversation as the model's input.

    Attributes:
        input_ids: Shape (T,), T at most ``max_length``.
        loss_mask: Shape (T,); True on tokens of a response, its end-of-turn token included.
        truncated: Whether tokens that carry loss were cut off on the right.
        ignored: Names of what the row says and the chat template leaves out.
    """

    input_ids: NDArray[np.int32]
    loss_mask: NDArray[np.bool_]
    truncated: bool
    ignored: tuple[str, ...] = ()


class ConversationEncoder:
    """Renders and tokenises with one tokenizer and one length limit."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        limits: TemplateLimits | None = None,
        template: str | None = None,
    ) -> None:
        """Prepare.

        Args:
            tokenizer: A fast tokenizer: the mask is drawn from its character offsets.
            max_length: Tokens of a sample, at least 2.
            limits: What the chat template may take.
            template: Name of the chat template, where the tokenizer has several.

        Raises:
            DatasetError: ``tokenizer_not_fast``, ``chat_template_broken``, ``chat_template_unknown``.
        """
        if max_length < 2:  # noqa: PLR2004 - a prefix and a response token
            raise ValueError(f"max_length is {max_length}, but a sample needs at least 2 tokens")
        if not tokenizer.is_fast:
            raise DatasetError(
                "tokenizer_not_fast",
                f"{type(tokenizer).__name__} gives no character offsets: save the model with a tokenizer.json",
            )
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer, limits, template)
        self._max_length = max_length

    def fingerprint(self) -> str:
        """Hex digest of all that decides how a conversation becomes tokens; equal across processes."""
        backend = json.loads(self._tokenizer.backend_tokenizer.to_str())
        for call_state in ("truncation", "padding"):  # what somebody's last call left behind
            backend.pop(call_state, None)
        parts = {
            "tokenizer": backend,
            "template": [self._template.source, self._template.source_with_tools],
            "special_tokens": {name: str(token) for name, token in self._tokenizer.special_tokens_map.items()},
            "max_length": self._max_length,
            "versions": [transformers.__version__, tokenizers.__version__],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def encode(self, conversations: Sequence[Conversation]) -> list[Encoded | Refusal]:
        """Encode a batch; one result for each conversation, in order, independent of its neighbours."""
        return self.tokenise(self.render(conversations))

    def tokenise(self, rendered: Sequence[Rendered | Refusal]) -> list[Encoded | Refusal]:
        """The second half of `encode`: tokens of what `render` gave."""
        # The template has written the special tokens into the text; adding them here would double the first one.
        tokenised = self._tokenise([one.text for one in rendered if isinstance(one, Rendered)])
        return [one if isinstance(one, Refusal) else self._cut(one, *next(tokenised)) for one in rendered]

    def spell(self, conversation: Conversation) -> tuple[Encoded, list[str]] | Refusal:
        """Encode one conversation and say which text each of its tokens stands for.

        Returns:
            The tokens and as many pieces; joined, the pieces are the text that the template wrote, up to the cut. A
            piece is empty where several tokens spell one character: the first of them has it.
        """
        [rendered] = self.render([conversation])
        if isinstance(rendered, Refusal):
            return rendered
        ids, offsets = next(self._tokenise([rendered.text]))
        encoded = self._cut(rendered, ids, offsets)
        if isinstance(encoded, Refusal):
            return encoded
        ends = np.maximum.accumulate([end for _, end in offsets[: len(encoded.input_ids)]]).tolist()
        return encoded, [rendered.text[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def render(self, conversations: Sequence[Conversation]) -> list[Rendered | Refusal]:
        """The first half of `encode`: the text of each, written by the chat template, or the row's own.

        It runs in another process, so that it may go on beside the second half of a batch before.
        """
        written = iter(self._template.render([one for one in conversations if one.text is None]))
        return [next(written) if one.text is None else self._plain(one.text) for one in conversations]

    def _plain(self, text: str) -> Rendered:
        """A text that is learned whole, between the tokens that the tokenizer puts around a text, and ended."""
        begin = self._template.bos
        end = str(self._tokenizer.eos_token or "")
        whole = (text if begin and text.startswith(begin) else begin + text) + ("" if text.endswith(end) else end)
        return Rendered(whole, ((0, len(whole)),))

    def _tokenise(self, texts: list[str]) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
        """Ids and character offsets of each text."""
        if not texts:
            return iter(())
        batch = self._tokenizer(
            texts,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return zip(batch["input_ids"], batch["offset_mapping"], strict=True)

    def _cut(self, rendered: Rendered, ids: list[int], offsets: list[tuple[int, int]]) -> Encoded | Refusal:
        flat = np.fromiter(itertools.chain.from_iterable(offsets), dtype=np.int64, count=2 * len(offsets))
        mask = response_mask(flat.reshape(-1, 2), rendered)
        if not mask[1:].any():
            return Refusal(Reason.EMPTY_RESPONSE)
        kept = mask[: self._max_length]
        if not kept[1:].any():
            return Refusal(Reason.RESPONSE_TRUNCATED, needed=int(np.flatnonzero(mask)[-1]) + 1)
        input_ids = np.asarray(ids[: self._max_length], dtype=np.int32)
        return Encoded(input_ids, kept, bool(mask[self._max_length :].any()), rendered.ignored)


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
