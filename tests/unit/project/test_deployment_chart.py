"""The Helm chart, held to its own schema and to what the rest of the project calls things; CI also runs `helm lint`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.main import get_command

from app.cli import app as cli
from app.core.settings import Settings

CHART = Path(__file__).resolve().parents[3] / "deploy" / "helm" / "spice"
TEMPLATES = "".join(path.read_text(encoding="utf-8") for path in sorted((CHART / "templates").iterdir()))
VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


def test_the_values_fit_the_schema() -> None:
    jsonschema.validate(VALUES, SCHEMA)


@pytest.mark.parametrize(
    "wrong", [{"worker": {**VALUES["worker"], "gpu": 1}}, {"settings": {"log_level": "INFO"}}, {"autoscale": {}}]
)
def test_a_misspelt_value_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**VALUES, **wrong}, SCHEMA)


def test_templates_read_values_that_there_are() -> None:
    paths = set(re.findall(r"\.Values\.([\w.]+)", TEMPLATES))
    assert paths
    for path in paths:
        found = VALUES
        for key in path.split("."):
            assert key in found, path
            found = found[key]


def test_templates_start_commands_and_set_settings_that_there_are() -> None:
    commands = set(re.findall(r"command: \[spice, (\w+)\]", TEMPLATES))
    assert commands == {"api", "worker", "migrate"}
    assert commands <= set(get_command(cli).commands)  # type: ignore[attr-defined]
    names = set(re.findall(r"name: (SPICE_\w+)", TEMPLATES))
    assert names
    assert names <= {f"SPICE_{name.upper()}" for name in Settings.model_fields}
