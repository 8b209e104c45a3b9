"""The rows of a JSON file, whichever of the usual ways it is written in.

One object a line, one list of turns a line, one array of objects, one object with such an array in it, objects over
several lines one after the other, and the orients of pandas. Which it is, its beginning tells, not its name.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from workers.data.errors import DatasetError
from workers.data.shapes import recognise
from workers.data.split import WHITE_SPACE, skip_bom, split_json_array, split_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

LOOKED_AT_BYTES = 1 << 17
WHOLE_BYTES = 1 << 28
"""A file that is one object, or objects over several lines, is read whole: up to this size."""


def split_json(stream: BufferedReader, max_bytes: int, *, lines: bool) -> Iterator[bytes | None]:
    """Yield the rows of a JSON file, each as its bytes.

    Args:
        stream: Decoded bytes.
        max_bytes: The longest row; a longer one yields None.
        lines: Whether the file is named as JSON Lines, where its beginning leaves it open.

    Raises:
        DatasetError: ``not_an_array``, ``not_json_lines``, ``damaged``.
    """
    skip_bom(stream)
    head = stream.peek(LOOKED_AT_BYTES).lstrip(WHITE_SPACE)
    if is_lines(head, lines=lines):
        return split_lines(stream, max_bytes)
    return _from_whole(stream, max_bytes) if head[:1] == b"{" else split_json_array(stream, max_bytes)


def is_lines(head: bytes, *, lines: bool) -> bool:
    """Whether each line of a JSON file is a row, as its beginning tells.

    Args:
        head: The beginning, without a mark and white space before it.
        lines: Whether the file is named as JSON Lines, where its beginning leaves it open.

    Raises:
        DatasetError: ``not_json_lines``.
    """
    first, ended, rest = head.partition(b"\n")
    begun = _parsed(first)
    more = bool(rest.strip(WHITE_SPACE))
    if head[:1] == b"[":
        if isinstance(begun, list) and (more or (lines and _is_turns(begun))):
            _check_lists(begun)
            return True
        return False
    if head[:1] != b"{":
        return lines
    continues = rest.lstrip(WHITE_SPACE)[:1]
    over_lines = begun is None and bool(ended) and continues not in (b"{", b"[", b"")
    return (lines and not over_lines) or (begun is not None and more)


def is_turns(value: object) -> bool:
    """Whether a list is the turns of a conversation, which is a row by itself."""
    return isinstance(value, list) and _is_turns(value)


def _is_turns(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value)


def _check_lists(first: list[Any]) -> None:
    if not _is_turns(first):
        raise DatasetError(
            "not_json_lines",
            "each line is a list, but not of turns with role and content: write an object on each line, as in "
            '{"prompt": "...", "response": "..."}',
        )


def _parsed(line: bytes) -> Any:  # noqa: ANN401 - any JSON
    """An object or a list that a line is; None if it is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _from_whole(stream: BufferedReader, max_bytes: int) -> Iterator[bytes | None]:
    """The rows of a file that begins with an object which does not end on its line, or is alone."""
    whole = stream.read(WHOLE_BYTES + 1)
    if len(whole) > WHOLE_BYTES:
        raise DatasetError(
            "not_an_array",
            f"the JSON file begins with an object and is larger than {WHOLE_BYTES:,} bytes, too large to be read at "
            "once: write JSON Lines, an object on each line",
        )
    try:
        values = list(_values(whole.decode("utf-8")))
    except UnicodeDecodeError as error:
        raise DatasetError("damaged", f"the JSON file is not UTF-8 ({error}): convert it") from None
    if len(values) == 1 and isinstance(values[0][0], dict):
        rows = _rows_in(values[0][0])
        if rows is not None:
            yield from (_fitting(json.dumps(row, ensure_ascii=False), max_bytes) for row in rows)
            return
    yield from (_fitting(text, max_bytes) for _, text in values)


def _fitting(text: str, max_bytes: int) -> bytes | None:
    raw = text.encode("utf-8", "surrogatepass")
    return raw if len(raw) <= max_bytes else None


def _values(text: str) -> Iterator[tuple[Any, str]]:
    """Each JSON value of a text, and how it is written."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        if text[at] in " \t\r\n,":
            at += 1
            continue
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            line = text.count("\n", 0, getattr(error, "pos", at)) + 1
            raise DatasetError(
                "damaged",
                f"the JSON file holds objects over several lines and is damaged or cut short at line {line}: write it "
                "again, best as JSON Lines",
            ) from None
        yield value, text[at:end]
        at = end


def _rows_in(whole: dict[str, Any]) -> list[Any] | None:
    """The rows in a file that is one object; None if the object is a row itself.

    Raises:
        DatasetError: ``not_an_array``: it is neither.
    """
    columns, data = whole.get("columns"), whole.get("data")
    if isinstance(columns, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        return [dict(zip(columns, row, strict=False)) for row in data]  # pandas, orient "split"
    values = list(whole.values())
    if values and all(isinstance(value, dict) for value in values):
        return _from_orient(whole)
    if values and all(isinstance(value, list) and not _is_turns(value) for value in values):
        lengths = {len(value) for value in values}
        if _is_known(whole) and len(lengths) == 1:  # pandas, orient "list"
            return [dict(zip(whole, row, strict=True)) for row in zip(*values, strict=True)]
    if _is_known(whole):
        return None
    lists = [
        name
        for name, value in whole.items()
        if isinstance(value, list) and value and all(isinstance(row, dict) or is_turns(row) for row in value)
    ]
    if len(lists) == 1:
        found: list[Any] = whole[lists[0]]
        return found
    names = ", ".join(repr(name) for name in list(whole)[:10])
    raise DatasetError(
        "not_an_array",
        f"the JSON file is one object with {names}, "
        + ("more than one of which hold rows" if lists else "none of which holds rows")
        + ": write an array of objects, or JSON Lines",
    )


def _from_orient(whole: dict[str, Any]) -> list[Any] | None:
    """Rows of pandas' orients: an object for each column, or one for each row."""
    first: dict[str, Any] = next(iter(whole.values()))
    if _is_known(whole) and not _is_known(first):
        index = list(dict.fromkeys(key for column in whole.values() for key in column))
        return [{name: column.get(key) for name, column in whole.items()} for key in index]
    return list(whole.values()) if _is_known(first) else None


def _is_known(row: dict[str, Any]) -> bool:
    try:
        recognise(list(row))
    except DatasetError:
        return False
    return True
