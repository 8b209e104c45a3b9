"""What a chat template looks at, read off its syntax tree: names, roles, how its turns may end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from jinja2 import nodes

if TYPE_CHECKING:
    from collections.abc import Iterable

BAR = "\N{FULLWIDTH VERTICAL LINE}"
END_NAMES = frozenset(
    {"/s", "assistant_end", "call", "end", "end_of_message", "end_of_sentence", "end_of_text", "end_of_turn"}
    | {"end_of_utterance", "endofmessage", "endoftext", "endofturn", "eod", "eom", "eom_id", "eos", "eot", "eot_id"}
    | {"im_end", "message_end", "return", "stop", "turn_end"}
)
END_TOKENS = (
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<|endoftext|>", "<|end_of_text|>"),
    *("<|return|>", "<|call|>", "<turn|>", "</s>", "<end_of_utterance>", "<|END_OF_TURN_TOKEN|>", "<|eot|>"),
    *("<|eom|>", "<|end_of_turn|>", "<eos>", f"<{BAR}end▁of▁sentence{BAR}>"),
)
"""Ends of a turn that are known by their spelling, also where a tokenizer spells them in several tokens."""

_THINK = r"(?:think\w*|thought\w*|reason\w*)"
_OPEN = (
    rf"(?:<[\w:]*{_THINK}>|\[{_THINK}\]|<\|[\w]*start[\w]*{_THINK}\|>|<\|begin_of_{_THINK}\|>|◁{_THINK}▷"
    rf"|<\|{_THINK}_start\|>|<\|{_THINK}\|>|<\|channel>{_THINK}\n?)"
)
_CLOSE = (
    rf"(?:</[\w:]*{_THINK}>|\[/{_THINK}\]|<\|[\w]*end[\w]*{_THINK}\|>|<\|end_of_{_THINK}\|>|◁/{_THINK}▷"
    rf"|<\|{_THINK}_end\|>|<\|/{_THINK}\|>|<channel\|>)"
)
EMPTY_THOUGHT = re.compile(rf"\s*{_OPEN}\s*{_CLOSE}\s*", re.IGNORECASE)
THOUGHT_ENDS = re.compile(rf"\s*{_CLOSE}\s*", re.IGNORECASE)
THOUGHT_BEGINS = re.compile(rf"{_OPEN}\s*\Z", re.IGNORECASE)
PREFILLED_THOUGHT = re.compile(rf"{_OPEN}\s*(?:{_CLOSE}\s*)?\Z", re.IGNORECASE)


class Words:
    """What a template names.

    Attributes:
        names: Every variable, attribute and key.
        roles: The roles that it compares a turn's role with.
        marks_generations: Whether it says itself what is generated.
    """

    def __init__(self, tree: nodes.Template) -> None:
        """Read a template's tree."""
        self.names: set[str] = set()
        self.roles: set[str] = set()
        self._read(tree.find_all((nodes.Name, nodes.Getattr, nodes.Const, nodes.Keyword)))
        for compare in tree.find_all(nodes.Compare):
            if any(_is_role(side) for side in (compare.expr, *(operand.expr for operand in compare.ops))):
                constants = compare.find_all(nodes.Const)
                self.roles.update(constant.value for constant in constants if isinstance(constant.value, str))
        self.marks_generations = "_note" in {
            call.name for call in tree.find_all(nodes.ExtensionAttribute) if isinstance(call.name, str)
        }

    def _read(self, found: Iterable[Any]) -> None:
        for node in found:
            if isinstance(node, nodes.Name):
                self.names.add(node.name)
            elif isinstance(node, nodes.Getattr):
                self.names.add(node.attr)
            elif isinstance(node, nodes.Keyword):
                self.names.add(node.key)
            elif isinstance(node.value, str):
                self.names.add(node.value)


def _is_role(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Filter):
        return node.node is not None and _is_role(node.node)
    if isinstance(node, nodes.Getattr):
        return node.attr == "role"
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "role"
    return isinstance(node, nodes.Name) and node.name == "role"


def ends_a_turn(token: str, last_tokens: Iterable[str]) -> bool:
    """Whether a control token ends a turn or a text: by its name, or because the tokenizer says so."""
    if token in last_tokens or token == "<turn|>":  # noqa: S105 - a token of text
        return True
    name = re.sub(r"[▁ -]", "_", token.strip(f"<>[]|{BAR}").lower())
    return name.removesuffix("_token") in END_NAMES
