"""`spice keys` and `spice projects` on a real database."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner, Result

from app.access.key_ring import KeyRing
from app.cli import app as spice
from app.core.db.engine import make_engine, make_sessions
from app.core.settings import Settings, get_settings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ring(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyRing]:
    monkeypatch.setenv("SPICE_DATABASE_URL", settings.database_url)
    get_settings.cache_clear()
    engine = make_engine(settings)
    yield KeyRing(make_sessions(engine), remember_s=0)
    engine.dispose()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(spice, list(arguments))


def test_from_a_project_to_a_key_that_opens_and_is_revoked(ring: KeyRing) -> None:
    assert run("projects", "create", "search").exit_code == 0
    made = run("keys", "create", "--project", "search", "--scope", "read", "--name", "ci")
    assert made.exit_code == 0, made.output
    token = made.stdout.strip()
    assert re.fullmatch(r"spice_[0-9a-f]{12}_[\w-]{43}", token), "stdout is the key alone, for scripts"
    found = ring.find(token)
    assert found is not None
    assert found.scope == "read"

    [listed] = json.loads(run("keys", "list", "--project", "search", "--json").stdout)
    assert (listed["name"], listed["scope"], listed["revoked_at"]) == ("ci", "read", None)
    assert listed["last_used_at"] is not None
    assert token.split("_", 2)[2] not in run("keys", "list").output

    assert run("keys", "revoke", listed["prefix"]).exit_code == 0
    assert ring.find(token) is None
    by_name = {row["name"]: row for row in json.loads(run("projects", "list", "--json").stdout)}
    assert by_name.keys() == {"default", "search"}
    assert (by_name["search"]["jobs"], by_name["search"]["keys"]) == (0, 0)


def test_a_key_ends_by_itself(ring: KeyRing) -> None:
    token = run("keys", "create", "--name", "brief", "--expires-days", "0").stdout.strip()
    assert ring.find(token) is None
    assert ring.find(run("keys", "create", "--name", "long", "--expires-days", "1").stdout.strip()) is not None


@pytest.mark.usefixtures("ring")
@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["keys", "create", "--project", "nowhere", "--name", "ci"], "spice projects create nowhere"),
        (["keys", "create", "--name", " "], "printable characters"),
        (["keys", "revoke", "abc"], "spice keys list"),
        (["projects", "create", "default"], "spice projects list"),
        (["keys", "create", "--name", "ci", "--expires-days", "1e308"], "36500"),
        (
            ["projects", "limit", "default", "--rows-per-day", "9" * 19],
            "a number from 0, of up to 18 digits, nor `default`",
        ),
        (["projects", "limit", "default", "--open-jobs", "-1"], "a number from 0, of up to 18 digits, nor `default`"),
        (
            ["projects", "limit", "default", "--requests-per-minute", "0"],
            "a number from 1, of up to 18 digits, nor `default`",
        ),
    ],
)
def test_what_cannot_be_done_says_what_to_do(command: list[str], said: str) -> None:
    done = run(*command)
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


def test_a_database_without_the_schema_is_told_of(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPICE_DATABASE_URL", empty_database_url)
    get_settings.cache_clear()
    done = run("keys", "list")
    assert done.exit_code == 3
    assert "spice migrate" in done.stderr
