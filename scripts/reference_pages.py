"""Writes the references of the client and of the command line out of the code (`make docs-reference`).

--check only says which page is stale.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import spice_client
from app.cli import app
from spice_client import waiting
from spice_client.cli.exit_codes import TABLE
from spice_client.client import Datasets, Jobs, Proofs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import click

DOCS = Path(__file__).resolve().parents[1] / "docs"
MADE = "Made from the code by `make docs-reference`; do not edit it here."
CLIENT_HEAD = f"""\
# Reference: Python client

{MADE} With examples: [the client](client.md). `AsyncSpiceClient` has the same methods, to be awaited.

"""
COMMAND_HEAD = f"""\
# Reference: command line

{MADE} With examples: [the client](client.md#command-line). Each command has `-h`; `spice --install-completion` sets up
completion, also of ids.

{TABLE.strip()}

"""
SECTIONS = ("Args", "Returns", "Raises", "Attributes")


def client_page() -> str:
    """Every public name of the client, with what its docstring says."""
    parts = [CLIENT_HEAD, "## SpiceClient\n\n", _prose(inspect.getdoc(spice_client.SpiceClient) or "")]
    for owner, prefix in (
        (spice_client.SpiceClient, ""),
        (Jobs, "jobs."),
        (Datasets, "datasets."),
        (Proofs, "proofs."),
    ):
        for name, method in _methods(owner):
            said = waiting.wait if prefix + name == "wait" else method  # overloaded, and described once
            parts += [
                f"### {prefix}{name}\n\n",
                _signature(prefix + name, method),
                _prose(inspect.getdoc(said) or ""),
            ]
    groups: dict[str, list[str]] = {"Results": [], "Errors": []}
    for name in spice_client.__all__:
        kind = getattr(spice_client, name)
        if name.endswith("SpiceClient") or not inspect.isclass(kind):
            continue
        group = "Errors" if issubclass(kind, Exception) else "Results"
        groups[group].append(f"### {name}\n\n{_prose(inspect.getdoc(kind) or '')}")
    for title, entries in groups.items():
        parts += [f"## {title}\n\n", *entries]
    return "".join(parts).rstrip() + "\n"


def command_page() -> str:
    """Every command with its arguments and options."""
    parts = [COMMAND_HEAD]
    for path, command in _commands(typer.main.get_command(app), "spice"):
        parts.append(f"## {path}\n\n{_prose(command.help or '')}")
        rows = [_parameter(one) for one in command.params if one.name != "help" and not getattr(one, "hidden", False)]
        if rows:
            parts.append("| | default | |\n|---|---|---|\n" + "".join(rows) + "\n")
    return "".join(parts).rstrip() + "\n"


PAGES: dict[str, Callable[[], str]] = {"reference-client.md": client_page, "reference-cli.md": command_page}


def main(arguments: list[str]) -> int:
    """Write the pages, or say which are stale; the exit code."""
    stale = []
    for name, render in PAGES.items():
        path = DOCS / name
        fresh = render()
        if "--check" not in arguments:
            path.write_text(fresh, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != fresh:
            stale.append(name)
    for name in stale:
        print(f"docs/{name} does not follow the code: run make docs-reference", file=sys.stderr)
    return 1 if stale else 0


def _methods(owner: type) -> Iterator[tuple[str, Any]]:
    for name, method in vars(owner).items():
        if not name.startswith("_") and inspect.isfunction(method):
            yield name, method


def _signature(name: str, method: Any) -> str:  # noqa: ANN401 - a method
    signature = inspect.signature(method)
    kept = [one for one in signature.parameters.values() if one.name != "self"]
    result = re.sub(r"^'|'$", "", str(signature.return_annotation))
    shown = ",\n".join(f"    {_argument(one)}" for one in _with_star(kept))
    whole = f"{name}({shown.strip()})" if len(kept) <= 1 else f"{name}(\n{shown},\n)"
    return f"```text\n{whole} -> {result}\n```\n\n"


def _with_star(parameters: list[inspect.Parameter]) -> Iterator[inspect.Parameter | str]:
    starred = False
    for one in parameters:
        if one.kind is inspect.Parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        yield one


def _argument(parameter: inspect.Parameter | str) -> str:
    if isinstance(parameter, str):
        return parameter
    return re.sub(r": '([^']*)'", r": \1", str(parameter)).replace("'", '"')


def _prose(doc: str) -> str:
    """A docstring as Markdown: its sections become lists."""
    lines, section = [], ""
    for line in inspect.cleandoc(doc).splitlines():
        heading = line.strip().rstrip(":")
        if heading in SECTIONS and line.endswith(":"):
            section = heading
            lines += [f"*{heading}*", ""]
        elif section and re.match(r" {4}\S", line):
            name, colon, rest = line.strip().partition(": ")
            lines.append(
                f"- `{name}`: {rest}" if colon and re.fullmatch(r"\*{0,2}[\w.]+", name) else f"- {line.strip()}"
            )
        elif section and line.strip():
            lines.append(f"  {line.strip()}")
        else:
            section = section if line.strip() == "" else ""
            lines.append(line)
    return "\n".join(lines).strip() + "\n\n"


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    children: dict[str, click.Command] = getattr(command, "commands", {})
    for name, child in children.items():
        if getattr(child, "commands", None):
            yield from _commands(child, f"{path} {name}")
        else:
            yield f"{path} {name}", child


def _parameter(parameter: click.Parameter) -> str:
    is_option = parameter.param_type_name == "option"
    words = _cell(getattr(parameter, "help", None) or "")
    metavar = getattr(parameter, "metavar", None) or (parameter.name or "").upper()
    names = ", ".join(f"`{name}`" for name in parameter.opts) if is_option else f"`{metavar}`"
    variable = f" (`{parameter.envvar}`)" if getattr(parameter, "envvar", None) else ""
    needed = " (required)" if parameter.required and is_option else ""
    return f"| {names} | {_default(parameter)} | {words}{variable}{needed} |\n"


def _default(parameter: click.Parameter) -> str:
    default = parameter.default
    if default in (None, False, ()) or callable(default) or not getattr(parameter, "show_default", True):
        return ""
    return f"`{getattr(default, 'value', default)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
