"""docker-compose.yml and the Dockerfile, held to what the rest of the project calls things."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from app.cli import app as cli
from app.core.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
OURS = {"api": "api", "worker": "worker", "worker-gpu": "worker", "migrate": "migrate"}

SETTINGS = {f"SPICE_{name.upper()}" for name in Settings.model_fields}


def filled_in(value: str) -> str:
    """What compose makes of `${NAME:-default}` where nothing is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def test_every_start_command_is_one_of_the_command_line() -> None:
    commands = get_command(cli).commands  # type: ignore[attr-defined]
    for service, command in OURS.items():
        assert SERVICES[service]["command"] == ["spice", command]
        assert command in commands


@pytest.mark.parametrize("stage", ["api", "worker"])
def test_an_image_starts_what_compose_starts(stage: str) -> None:
    _, text = re.split(rf"^FROM \S+ AS {stage}$", DOCKERFILE, flags=re.MULTILINE)
    command = re.search(r'^CMD \["spice", "(\w+)"\]$', text, re.MULTILINE)
    assert command
    assert command[1] == stage


def test_every_environment_name_is_a_setting() -> None:
    names = {name for service in SERVICES.values() for name in service.get("environment", {})}
    names |= set(re.findall(r"SPICE_\w+", DOCKERFILE + (ROOT / ".env.example").read_text(encoding="utf-8")))
    ours = {name for name in names if name.startswith("SPICE_") and name != "SPICE_"}
    assert ours
    assert ours <= SETTINGS


@pytest.mark.parametrize("service", OURS)
def test_the_settings_of_a_service_hold_where_nothing_is_set(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SERVICES[service]["environment"].items():
        monkeypatch.setenv(name, filled_in(value))
    settings = Settings(_env_file=None)
    assert "@postgres:5432/spice" in str(settings.database_url)
    if service != "migrate":
        assert settings.allowed_roots == ("/data", "/models")
        assert str(settings.redis_url).startswith("redis://redis:6379")
        assert settings.artifacts_path.is_relative_to("/var/lib/spice")


def test_the_api_asks_for_keys() -> None:
    assert SERVICES["api"]["environment"]["SPICE_AUTH"] == "keys"


def test_only_the_api_is_published_and_only_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published.keys() == {"api"}
    assert [filled_in(port) for port in published["api"]] == ["127.0.0.1:8000:8000"]
    for name in ("postgres", "redis"):
        assert SERVICES[name]["networks"] == ["inside"]
    assert COMPOSE["networks"]["inside"]["internal"] is True


def test_who_needs_the_database_waits_for_the_migration() -> None:
    for name in ("api", "worker", "worker-gpu"):
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert SERVICES["migrate"]["depends_on"]["postgres"] == {"condition": "service_healthy"}


def test_workers_can_be_scaled() -> None:
    for name in ("worker", "worker-gpu"):
        assert not SERVICES[name].keys() & {"ports", "container_name"}


def test_the_gpu_worker_waits_for_its_profile_and_asks_for_a_gpu() -> None:
    worker = SERVICES["worker-gpu"]
    assert worker["profiles"] == ["gpu"]
    assert worker["build"]["args"] == {"TORCH": "cuda"}
    [device] = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert not [name for name, service in SERVICES.items() if name != "worker-gpu" and "profiles" in service]


def test_our_containers_are_confined() -> None:
    for name in OURS:
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["pids_limit"] > 0
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)


def test_no_containers_log_fills_the_disk() -> None:
    for name, service in SERVICES.items():
        if name != "password":  # says nothing
            assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name


def test_foreign_images_are_pinned_by_digest() -> None:
    images = [service["image"] for name, service in SERVICES.items() if name not in OURS]
    images += re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert len(images) == 4
    assert all(re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image) for image in images)


def test_images_are_built_and_started_on_amd64_and_arm64() -> None:
    """The digests are of indices, which name an image for each processor; an engine on each takes its own."""
    assert not re.search(r"--platform|TARGETARCH|amd64|x86_64|aarch64", DOCKERFILE)
    assert not [name for name, service in SERVICES.items() if "platform" in service]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    images = workflow["jobs"]["images"]
    assert images["strategy"]["matrix"]["runner"] == ["ubuntu-24.04", "ubuntu-24.04-arm"]
    assert images["runs-on"] == "${{ matrix.runner }}"
    assert any("docker compose up --build" in step.get("run", "") for step in images["steps"])


def test_the_database_password_is_made_up_once(tmp_path: Path) -> None:
    """Runs the very script of the `password` service, with its directory and the change of owner replaced."""
    service = SERVICES["password"]
    directory = tmp_path / "run"
    directory.mkdir()
    (tmp_path / "chown").write_text('#!/bin/sh\necho "$@" >> "$CHOWNED"\n')
    (tmp_path / "chown").chmod(0o755)
    script = service["command"][0].replace("$$", "$").replace("/run/spice", str(directory))
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CHOWNED": str(tmp_path / "chowned")}

    passwords = []
    for _ in range(2):
        subprocess.run([*service["entrypoint"], script], env=environment, check=True)
        passwords.append((directory / "password").read_text().strip())

    assert re.fullmatch("[0-9a-f]{64}", passwords[0])
    assert passwords[0] == passwords[1]
    assert (directory / "pgpass").read_text() == f"postgres:*:*:spice:{passwords[0]}\n"
    assert {file.name for file in directory.iterdir()} == {"password", "pgpass"}
    assert {file.stat().st_mode & 0o777 for file in directory.iterdir()} == {0o600}
    assert (tmp_path / "chowned").read_text().split() == [
        *["postgres:postgres", "password", "10001:10001", "pgpass.new"] * 2
    ]


def test_no_two_services_build_the_same_image() -> None:
    built = [service["image"] for service in SERVICES.values() if "build" in service]
    assert len(built) == len(set(built))
    assert SERVICES["migrate"]["image"] == SERVICES["api"]["image"]
    assert SERVICES["migrate"]["pull_policy"] == "never"


def test_up_can_wait_for_every_service() -> None:
    """`compose up --wait` fails on a container whose image says that it has no health check."""
    assert "HEALTHCHECK NONE" not in re.sub(r"^#.*$", "", DOCKERFILE, flags=re.MULTILINE)
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    commands = re.findall(r"^docker compose up .*$", page, re.MULTILINE)
    assert commands
    assert all("--wait" in command for command in commands)


def test_volumes_that_an_image_declares_are_named_or_in_memory() -> None:
    """An anonymous volume would stay behind at each `docker compose down`."""
    declared = {"postgres": "/var/lib/postgresql", "password": "/var/lib/postgresql", "redis": "/data"}
    for name, path in declared.items():
        service = SERVICES[name]
        named = {volume.split(":")[1] for volume in service.get("volumes", [])}
        assert path in named | set(service.get("tmpfs", [])), name


def test_the_build_asks_no_registry_for_a_frontend_and_leaves_no_build_tool_behind() -> None:
    assert not DOCKERFILE.startswith("# syntax=")
    assert "setuptools" not in DOCKERFILE
    assert "--create-home" not in DOCKERFILE.replace("--no-create-home", "")


def test_no_password_is_written_down() -> None:
    assert not re.search(r"PASSWORD: (?!/run)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    for service in OURS:
        url = filled_in(SERVICES[service]["environment"]["SPICE_DATABASE_URL"])
        assert url == "postgresql://spice@postgres:5432/spice"
