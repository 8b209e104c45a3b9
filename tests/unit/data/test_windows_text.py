"""Text of Windows is read where it can mean one thing alone, else refused with the conversion that mends it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from app.core.uris.datasets import check_uri
from workers.data.decode import LATIN
from workers.data.errors import DatasetError
from workers.data.fetch import fetch
from workers.data.formats import BadRecord, Record, iter_records
from workers.data.rejection import Reason

if TYPE_CHECKING:
    from pathlib import Path

    from app.core.settings import Settings

SAFE = "\N{LEFT DOUBLE QUOTATION MARK}Grüße, café\N{EN DASH} 5 €, don\N{RIGHT SINGLE QUOTATION MARK}t…"


def read(path: Path, settings: Settings) -> list[Record | BadRecord]:
    return list(iter_records(fetch(check_uri(path.as_uri(), settings), settings), settings))


@pytest.mark.parametrize("page", ["cp1250", "cp1252", "cp1254", "cp1257"])
def test_characters_that_every_code_page_has_in_one_place_are_read(page: str, root: Path, settings: Settings) -> None:
    (root / "d.csv").write_bytes(f"prompt,response\n1,{SAFE}\n".replace(f",{SAFE}", f',"{SAFE}"').encode(page))
    (root / "d.jsonl").write_bytes(
        (json.dumps({"prompt": "1", "response": SAFE}, ensure_ascii=False) + "\n").encode(page)
    )
    for name in ("d.csv", "d.jsonl"):
        [row] = read(root / name, settings)
        assert isinstance(row, Record)
        assert row.values == {"prompt": "1", "response": SAFE}


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("je vais à Paris", "cp1252"),
        ("źdźbło", "cp1250"),
        ("привет", "cp1251"),
        ("日本", "shift_jis"),
        ("ÄÖÜß", "cp1252"),
        ("caf\xe9, na\xefve", "utf-8"),
    ],
)
def test_what_may_be_another_letter_is_not_guessed(text: str, encoding: str, root: Path, settings: Settings) -> None:
    raw = text.encode(encoding)[:-1] if encoding == "utf-8" else text.encode(encoding)
    (root / "d.jsonl").write_bytes(
        b'{"prompt": "1", "response": "' + raw + b'\xff"}\n{"prompt": "2", "response": "x"}\n'
    )
    bad, good = read(root / "d.jsonl", settings)
    assert isinstance(bad, BadRecord)
    assert bad.reason is Reason.INVALID_UTF8
    assert isinstance(good, Record)


def test_a_letter_that_differs_later_on_names_the_conversion(root: Path, settings: Settings) -> None:
    line = '{"prompt": "1", "response": "caf\xe9"}\n'
    (root / "d.jsonl").write_bytes((line * 10_000).encode("cp1252") + '{"prompt": "à"}\n'.encode("cp1252"))
    with pytest.raises(DatasetError, match=r"byte 0xE0 .*iconv -f WINDOWS-1252 -t UTF-8") as raised:
        read(root / "d.jsonl", settings)
    assert raised.value.reason_code == "encoding_unclear"


def test_the_letters_are_those_that_the_code_pages_share() -> None:
    assert set("€„…“”•™äöüßéÄÖÜÉ") <= {bytes([byte]).decode("cp1252") for byte in LATIN}
    assert not set("àèñãåøç") & {bytes([byte]).decode("cp1252") for byte in LATIN}
