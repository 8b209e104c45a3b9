"""How many steps the arms of a proof take: as many tokens a step wherever their budgets differ."""

from __future__ import annotations

import numpy as np

from app.core.contracts.proof_request import MethodArm, ProofRequest
from app.core.contracts.selection_request import SelectionSpec
from workers.stages.proof_arms import Chooser, Pool


def test_an_arm_with_another_budget_has_as_many_tokens_a_step() -> None:
    """Rows of 10 tokens: 8 of them, three times, are 240 tokens, which at 40 a step are 6 steps; 4 of them are 3."""
    spec = SelectionSpec.model_validate({"budget": {"count": 8}})
    arms = ["selected", "random", {"method": "fisher"}, {"name": "half", "selection": {"budget": {"count": 4}}}]
    request = ProofRequest.model_validate(
        {
            "job": "7d5fa1b4-0d6e-4a0e-8a35-5a3a0a9be4a1",
            "arms": [*arms, {"name": "mine", "indices": [1, 2]}, "all"],
            "training": {"epochs": 3, "batch_tokens": 40},
        }
    )
    rows = np.arange(20)
    pool = Pool(rows, 20, np.full(20, 10), rows, {})
    chooser = Chooser(request, spec, pool, lambda asked: rows[: asked.budget.count], lambda _: rows[:0])
    assert {arm.name: arm.steps for arm in chooser.choose(rows[:8])} == {
        "selected": 6,
        "random": 6,
        "fisher": 6,
        "half": 3,
        "mine": 2,
        "all": 15,
    }


def test_an_arm_of_another_method_is_none_the_worse_for_how_the_job_selected() -> None:
    """Parts are for two methods and curvature for one more setting; a proof selects at once, and tells no curvature."""
    job = SelectionSpec.model_validate({"budget": {"count": 8}, "method": "fisher", "seed": 3})
    for made in ({"partitions": 4}, {"curvature": True}):
        arm = MethodArm(method="dpp").settings(SelectionSpec.model_validate({**job.model_dump(), **made}))
        assert arm == job.model_copy(update={"method": "dpp"})
