"""Which rows a search finds."""

from __future__ import annotations

import pytest

from app.results.rows_schemas import TextRow
from app.results.rows_service import Asked


@pytest.mark.parametrize("query", ["caf\u00e9", "cafe\u0301", "CAF\u00c9", "strasse", "\ufb01n"])
@pytest.mark.parametrize("text", ["caf\u00e9 stra\u00dfe fin", "CAFE\u0301 STRASSE \ufb01n"])
def test_a_search_sees_neither_case_nor_unicode_form(query: str, text: str) -> None:
    row = TextRow.model_validate({"rank": 1, "index": 0, "cut": False, "messages": [{"role": "user", "content": text}]})
    assert Asked(query, 1, None).holds_for(row)
    assert not Asked("cafa", 1, None).holds_for(row)
