"""The settings, for commands that need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spice_client.cli.failure import refusal

if TYPE_CHECKING:
    from app.core.settings import Settings


def read_settings(**given: Any) -> Settings:  # noqa: ANN401 - settings of any type
    """The settings of this process.

    Args:
        **given: Settings that a command's flags say, instead of the environment.

    Raises:
        CommandFailedError: A variable has a wrong value; the problem names each.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - client commands do without the settings

    from app.core.settings import Settings, get_settings  # noqa: PLC0415

    try:
        return Settings(**given) if given else get_settings()
    except ValidationError as error:
        secret = {name for name, field in Settings.model_fields.items() if not field.repr}
        faults = [
            {
                "field": "SPICE_" + "_".join(str(part) for part in fault["loc"]).upper() if fault["loc"] else "SPICE_*",
                "message": f"{fault['msg']} (got {fault['input']!r})"
                if fault["loc"] and fault["loc"][0] not in secret
                else fault["msg"],
            }
            for fault in error.errors(include_url=False)
        ]
        detail = "; ".join(f"{fault['field']}: {fault['message']}" for fault in faults)
        raise refusal("A setting is wrong", detail, errors=faults) from None
