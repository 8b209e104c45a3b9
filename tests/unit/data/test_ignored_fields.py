"""However many fields rows name, the result names some of them and counts the rest."""

from __future__ import annotations

from workers.data.ignored_fields import FURTHER_FIELDS, MOST_FIELDS, IgnoredFields

FIELDS = [f"field {number:04}" for number in range(1_000)]


def test_few_fields_are_counted_each() -> None:
    fields = IgnoredFields()
    for row in ({"b": 1, "a": 1}, {"b": 1}, {"broken \ud800\0": 1}):
        fields.add(row)
    assert fields.counted() == {"a": 1, "b": 2, "broken ?\N{REPLACEMENT CHARACTER}": 1}


def test_many_fields_are_some_and_a_sum_whatever_their_order_and_pieces() -> None:
    """Three rows have each field; the first hundred by name are told."""
    rows = [{name: 1} for name in [*FIELDS, *reversed(FIELDS), *FIELDS[500:], *FIELDS[:500]]]
    whole = IgnoredFields()
    for row in rows:
        whole.add(row)
    expected = {**dict.fromkeys(FIELDS[:MOST_FIELDS], 3), FURTHER_FIELDS: 3 * (len(FIELDS) - MOST_FIELDS)}
    assert whole.counted() == expected
    joined = IgnoredFields()
    for start in range(0, len(rows), 170):
        piece = IgnoredFields()
        for row in rows[start : start + 170]:
            piece.add(row)
        joined.add(piece.counted())
    assert joined.counted() == expected


def test_names_without_end_are_cut() -> None:
    fields = IgnoredFields()
    fields.add({"x" * 100_000: 1})
    [name] = fields.counted()
    assert len(name) <= 1_000
