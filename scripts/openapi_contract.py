"""Writes docs/openapi.json (`make openapi`); --check only says if it is stale, --against OLD.json what would break.

What would break a client: an operation, an answer or a field of an answer that is gone, a field of a request that is
gone or needed now, a parameter that is needed now, a value that is not taken any more.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.core.settings import Settings
from app.main import create_app

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "openapi.json"
Json = dict[str, Any]


def render() -> str:
    """The contract of this version."""
    return json.dumps(create_app(Settings(_env_file=None)).openapi(), indent=1, sort_keys=True) + "\n"


def breaks(old: Json, new: Json) -> list[str]:
    """What clients of the old contract would miss in the new one."""
    found = []
    for path, operations in old["paths"].items():
        for method, before in operations.items():
            after = new["paths"].get(path, {}).get(method)
            name = f"{method.upper()} {path}"
            if after is None:
                found.append(f"{name} is gone")
                continue
            found += [f"{name}: {change}" for change in _changes(_Side(old, before), _Side(new, after))]
    return found


class _Side:
    """An operation in its document."""

    def __init__(self, document: Json, operation: Json) -> None:
        self._document = document
        self.operation = operation

    def needed(self) -> set[str]:
        """Parameters that must be sent."""
        return {f"{one['in']} {one['name']}" for one in self.operation.get("parameters", []) if one.get("required")}

    def body(self) -> Json:
        """Schema of the request."""
        content = self.operation.get("requestBody", {}).get("content", {})
        return dict(content.get("application/json", {}).get("schema", {}))

    def answers(self) -> dict[str, Json]:
        """Schemas of the answers that are successes, by status."""
        return {
            status: dict(answer.get("content", {}).get("application/json", {}).get("schema", {}))
            for status, answer in self.operation["responses"].items()
            if status.startswith("2")
        }

    def fields(self, schema: Json, prefix: str = "", seen: frozenset[str] = frozenset()) -> Iterator[tuple[str, bool]]:
        """Paths of the fields and the values of enumerations in a schema, and whether each is required."""
        reference = schema.get("$ref")
        if reference in seen:
            return
        if reference is not None:
            seen |= {reference}
            schema = self._document["components"]["schemas"][reference.rpartition("/")[2]]
        for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
            yield from self.fields(part, prefix, seen)
        if "items" in schema:
            yield from self.fields(schema["items"], f"{prefix}[]", seen)
        for value in schema.get("enum", ()):
            yield f"{prefix}={value}", False
        for name, inner in schema.get("properties", {}).items():
            path = f"{prefix}.{name}".lstrip(".")
            yield path, name in schema.get("required", ())
            yield from self.fields(inner, path, seen)


def _changes(old: _Side, new: _Side) -> Iterator[str]:
    yield from (f"parameter {name} must be sent now" for name in sorted(new.needed() - old.needed()))
    taken, takes = dict(old.fields(old.body())), dict(new.fields(new.body()))
    yield from (f"the request can't have {name} any more" for name in sorted(taken.keys() - takes.keys()))
    # A field that is needed inside an object that is new itself breaks nobody.
    known = {"", *taken}
    yield from (
        f"the request must have {name} now"
        for name, needed in sorted(takes.items())
        if needed and not taken.get(name, False) and name.rpartition(".")[0] in known
    )
    for status, schema in old.answers().items():
        if status not in new.answers():
            yield f"no answer has the status {status} any more"
            continue
        given, gives = dict(old.fields(schema)), dict(new.fields(new.answers()[status]))
        gone = {name for name in given if "=" not in name} - gives.keys()
        yield from (f"the answer {status} has no {name} any more" for name in sorted(gone))


def main(arguments: list[str]) -> int:
    """Writes the document, compares it, or compares it with another one."""
    if arguments[:1] == ["--against"]:
        found = breaks(json.loads(Path(arguments[1]).read_text(encoding="utf-8")), json.loads(render()))
        print("\n".join(found) or "Nothing breaks.")
        return 1 if found else 0
    if "--check" not in arguments:
        DOCUMENT.write_text(render(), encoding="utf-8")
        return 0
    if not DOCUMENT.exists() or DOCUMENT.read_text(encoding="utf-8") != render():
        print("docs/openapi.json is not what the service answers to: run make openapi.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
