"""Writes docs/settings.md out of the settings class (`make docs-settings`); --check only says if it is stale."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from app.core.settings import Settings

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"

HEAD = """\
# Settings

Every setting of the API and of the workers, read once at the start from the environment or from a file `.env` in
the working directory. A wrong value stops the process and names the variable. Lists are comma separated.

Made from `app/core/settings.py` by `make docs-settings`; do not edit it here.

| Variable | Default | Limits | What it is |
|---|---|---|---|
"""


def render() -> str:
    """The whole page."""
    prefix = Settings.model_config["env_prefix"]
    rows = [
        f"| `{prefix}{name.upper()}` | {_default(field)} | {_limits(field)} | {_cell(field.description or '')} |\n"
        for name, field in Settings.model_fields.items()
    ]
    return HEAD + "".join(rows)


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value == ():
        return ""
    if isinstance(value, tuple):
        return _code(",".join(value))
    if isinstance(value, bool):
        return _code(str(value).lower())
    return _code(str(value))


def _limits(field: FieldInfo) -> str:
    """What the type and the bounds of the field allow beyond a plain value of its type."""
    signs = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    limits = []
    for bound in field.metadata:
        limits += [f"{words} {getattr(bound, sign)}" for sign, words in signs.items() if hasattr(bound, sign)]
        if pattern := getattr(bound, "pattern", None):
            limits.append(_code(_cell(pattern)))
    if choices := getattr(field.annotation, "__args__", ()):
        limits += [_code(choice) for choice in choices if isinstance(choice, str)]
    return ", ".join(limits)


def _code(text: str) -> str:
    return f"`{text}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Writes the page, or with --check compares it."""
    if "--check" not in arguments:
        PAGE.write_text(render(), encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") != render():
        print("docs/settings.md is not what app/core/settings.py says: run make docs-settings.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
