"""Commands whose packages come with an extra of the distribution."""

from __future__ import annotations

from importlib.util import find_spec

from spice_client.cli.failure import refusal


def needs(extra: str, *modules: str) -> None:
    """Refuse to go on where packages of an extra are missing.

    Args:
        extra: The extra that brings them.
        modules: Top-level modules that the command cannot do without.

    Raises:
        CommandFailedError: One is missing; the message names the extra.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise refusal(
            "A part of the distribution is not installed",
            f"this command needs {', '.join(missing)}, which the extra '{extra}' brings: "
            f"pip install '.[{extra}]' in the repository",
        )
