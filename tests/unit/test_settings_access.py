"""Where the API may go without keys."""

from __future__ import annotations

import pytest

from app.settings import Settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "localhost", "::1"])
def test_a_service_that_only_this_machine_reaches_may_go_without_keys(host: str) -> None:
    assert Settings(_env_file=None, auth="off", host=host).auth == "off"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.org", "localhost.example.org"])  # noqa: S104 - which is refused
def test_a_service_that_others_reach_may_not(host: str) -> None:
    with pytest.raises(ValueError, match=r"SPICE_AUTH: is off, but SPICE_HOST"):
        Settings(_env_file=None, auth="off", host=host)


def test_keys_are_asked_for_unless_told_otherwise() -> None:
    assert Settings(_env_file=None).auth == "keys"
