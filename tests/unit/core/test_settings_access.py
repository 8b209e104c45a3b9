"""Where the API may go without keys, and what of the settings is never told."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from app.cli.settings import read_settings
from app.core.settings import Settings
from spice_client.cli.failure import CommandFailedError


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "localhost", "::1"])
def test_a_service_that_only_this_machine_reaches_may_go_without_keys(host: str) -> None:
    assert Settings(_env_file=None, auth="off", host=host).auth == "off"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.org", "localhost.example.org"])  # noqa: S104 - which is refused
def test_a_service_that_others_reach_may_not(host: str) -> None:
    with pytest.raises(ValueError, match=r"SPICE_AUTH: is off, but SPICE_HOST"):
        Settings(_env_file=None, auth="off", host=host)


def test_keys_are_asked_for_unless_told_otherwise() -> None:
    assert Settings(_env_file=None).auth == "keys"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SPICE_DATABASE_URL", "mysql://spice:hush-hush@db/spice"),
        ("SPICE_REDIS_URL", "http://:hush-hush@redis/0"),
        ("SPICE_WEBHOOK_SECRET", "hush-hush"),
    ],
)
def test_no_message_repeats_what_may_be_a_secret(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(CommandFailedError) as failed:
        read_settings()
    assert name in str(failed.value)
    assert "hush" not in json.dumps(failed.value.problem)
    with pytest.raises(ValidationError) as wrong:
        Settings(_env_file=None)
    assert "hush" not in str(wrong.value)


def test_what_the_settings_say_of_themselves_has_no_secret() -> None:
    settings = Settings(
        _env_file=None,
        database_url="postgresql://spice:hush-hush@db/spice",
        redis_url="redis://:hush-hush@redis/0",
        webhook_secret="hush-hush-hush-hush",
    )
    assert "hush" not in repr(settings)
