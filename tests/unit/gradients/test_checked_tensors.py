"""A file of tensors is whole, or it is nothing: a flipped bit anywhere in it is seen, in its header too."""

from __future__ import annotations

import numpy as np
import pytest

from workers.gradients.checked_tensors import pack, unpack

OUTCOME = '{"loss": 4.25, "sha256":"said by the text itself"}'


@pytest.fixture(scope="module")
def content() -> bytes:
    return pack({"scores": np.arange(6, dtype=np.float64)}, {"outcome": OUTCOME})


def test_what_was_packed_comes_back(content: bytes) -> None:
    found = unpack(content)
    assert found is not None
    assert found.metadata == {"outcome": OUTCOME}
    assert found.tensors["scores"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_text_alone_can_be_packed() -> None:
    found = unpack(pack({}, {"outcome": OUTCOME}))
    assert found is not None
    assert (found.metadata, found.tensors) == ({"outcome": OUTCOME}, {})


def test_every_byte_counts(content: bytes) -> None:
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1
        assert unpack(bytes(flipped)) is None, f"byte {at} of {len(content)}: {content[at : at + 20]!r}"


@pytest.mark.parametrize("left", [0, 7, 8, 100, -1])
def test_a_part_of_it_is_nothing(content: bytes, left: int) -> None:
    assert unpack(content[:left]) is None


def test_nothing_may_follow(content: bytes) -> None:
    assert unpack(content + b"\0") is None
