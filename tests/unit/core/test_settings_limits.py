"""Settings that no process could work with stop it at its start."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from app.core.settings import LONGEST_S, Settings


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name.endswith("_s")])
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_time_is_a_number(name: str, value: str) -> None:
    with pytest.raises(ValidationError, match=rf"{name}\n  Input should be a finite number"):
        Settings(_env_file=None, **{name: value})


@pytest.mark.parametrize(
    "name",
    ["lease_s", "job_timeout_s", "storage_patience_s", "webhook_timeout_s", "idempotency_max_age_s", "jobs_max_age_s"],
)
def test_what_is_added_to_a_time_leaves_one_that_postgres_holds(name: str) -> None:
    assert getattr(Settings(_env_file=None, **{name: LONGEST_S}), name) == LONGEST_S
    with pytest.raises(ValidationError, match=rf"{name}\n  Input should be less than or equal to {LONGEST_S}"):
        Settings(_env_file=None, **{name: 2 * LONGEST_S})
