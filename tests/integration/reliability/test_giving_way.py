"""A long selection on the only worker gives way to what other projects, and higher priorities, wait for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from app.access import projects
from app.core.db.tables import Job
from tests.integration.settled import assert_settled, final, wait_for

if TYPE_CHECKING:
    from app.core.db.engine import Sessions
    from tests.integration.conftest import Service
    from tests.integration.processes import Processes

PICK_S = 0.2
HELD_S = 2.0
"""Of the selection before anybody else comes: so much time is then theirs."""


def test_a_small_job_comes_in_between_and_the_selection_goes_on(service: Service, workers: Processes) -> None:
    long = service.request(budget={"count": 50})
    alone = service.run({**long, "gradients": {**long["gradients"], "seed": 0}})
    workers.start(("slow_picks", str(PICK_S)))
    first = service.submit(long)
    wait_for(service, first, lambda job: job["stage"] == "selecting" and job["progress"]["done"] > HELD_S / PICK_S)
    urgent = service.submit({**service.request(budget={"count": 2}), "priority": "high"})
    done = wait_for(service, urgent, final)
    meanwhile = service.job(first)
    assert done["state"] == "succeeded", done["error"]
    assert (meanwhile["state"], meanwhile["stage"]) == ("running", "selecting")
    ended = wait_for(service, first, final)
    assert ended["state"] == "succeeded", ended["error"]
    picks = [service.http.get(f"/jobs/{job}/subset?format=json").json()["indices"] for job in (first, alone["id"])]
    assert picks[0] == picks[1], "what came in between changes no pick"
    workers.stop()
    assert_settled(service)


def test_another_projects_job_comes_in_between_and_ones_own_waits(
    service: Service, workers: Processes, sessions: Sessions
) -> None:
    workers.start(("slow_picks", str(PICK_S)))
    first = service.submit(service.request(budget={"count": 50}))
    wait_for(service, first, lambda job: job["stage"] == "selecting" and job["progress"]["done"] > HELD_S / PICK_S)
    own, other = (service.submit(service.request(budget={"count": 2})) for _ in range(2))
    with sessions() as session:
        session.get_one(Job, other).project_id = projects.create(session, "other").id
        session.commit()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with sessions() as session:
            states = {job: session.get_one(Job, job).state for job in (first, own, other)}
        if states[other].final:
            break
        time.sleep(0.1)
    assert states == {first: "running", own: "queued", other: "succeeded"}
    assert wait_for(service, own, final)["state"] == "succeeded"
    assert wait_for(service, first, final)["state"] == "succeeded"
