"""What happens to a job, as a stream and as a list: the same events, in order, none lost and none twice."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sqlalchemy import func, select, text

from app.core.contracts.job_plan import JobPlan
from app.core.contracts.job_request import EXAMPLE_REQUEST
from app.core.db.tables import Job, JobEvent, Shard, Stage, State
from app.core.lifecycle import leases, parking
from app.events import repository
from app.main import create_app
from tests.integration.deadlines import soon
from tests.integration.served import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from app.core.db.engine import Sessions
    from app.core.settings import Settings
    from tests.integration.conftest import Service

LISTENERS = 200
STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    quick = settings.model_copy(update={"events_poll_s": 0.05, "events_heartbeat_s": 0.2, "database_pool_size": 2})
    with served(create_app(quick)) as url:
        yield url


def add_job(sessions: Sessions) -> uuid.UUID:
    with sessions() as session:
        job = Job(request=EXAMPLE_REQUEST)
        session.add(job)
        session.commit()
        return job.id


def begin(sessions: Sessions, job_id: uuid.UUID) -> leases.Lease:
    with sessions() as session:
        lease = leases.claim(session, Job, job_id, 1, 60)
        assert lease is not None
        return lease


def end(sessions: Sessions, lease: leases.Lease, state: State = State.SUCCEEDED) -> None:
    with sessions() as session:
        assert leases.finish(session, lease, state, stage=None, progress=None)
        session.commit()


def progress(done: int) -> dict[str, Any]:
    return {"done": done, "total": 100, "unit": "rows", "rate": 1.0, "eta_s": 100.0 - done}


def told(sessions: Sessions, job_id: uuid.UUID) -> list[tuple[str, Any]]:
    """Kind and main field of each event of a job."""
    with sessions() as session:
        found = repository.after(session, (job_id, 0), 1000)
    fields = {"state": "state", "stage": "stage", "progress": "done"}
    return [(event.kind.value, event.data[fields[event.kind]]) for event in found]


def pretend(sessions: Sessions, job_id: uuid.UUID, *, stage_s: float, last_s: float) -> None:
    """Have a job's stage begun, and its last event told of, so many seconds ago."""
    statement = text(
        "UPDATE job_events SET at = now() - interval '1 second' * CASE WHEN id = (SELECT max(id) FROM job_events "
        "WHERE job_id = :job) THEN :last_s ELSE :stage_s END WHERE job_id = :job"
    )
    with sessions() as session:
        session.execute(statement, {"job": job_id, "stage_s": stage_s, "last_s": last_s})
        session.commit()


def parsed(stream: str) -> list[dict[str, str]]:
    """The blocks of an event stream, field by field."""
    blocks = [block for block in stream.split("\n\n") if block]
    return [dict(line.partition(": ")[::2] for line in block.split("\n")) for block in blocks]


def ids_of(stream: str) -> list[int]:
    return [int(block["id"]) for block in parsed(stream) if "id" in block]


def heard(address: str, seconds: float = 10, **headers: str) -> httpx.Response:
    """A whole event stream, which must have ended after some seconds."""
    deadline = time.monotonic() + seconds
    with httpx.stream("GET", address, headers=STREAM | headers, timeout=seconds) as response:
        parts = []
        for part in response.iter_bytes():
            assert time.monotonic() < deadline, b"".join(parts)
            parts.append(part)
    return httpx.Response(response.status_code, headers=response.headers, content=b"".join(parts))


def test_every_change_of_a_job_is_told_once_and_in_order(sessions: Sessions) -> None:
    job_id = add_job(sessions)
    lease = begin(sessions, job_id)
    with sessions() as session:
        leases.extend(session, lease, 60, stage=Stage.READING, progress=progress(0))
        leases.extend(session, lease, 60)
        leases.extend(session, lease, 60, stage=Stage.SELECTING, progress=progress(0))
        leases.request_cancel(session, Job, job_id)
        leases.request_cancel(session, Job, job_id)
        session.commit()
    end(sessions, lease, State.CANCELLED)
    assert told(sessions, job_id) == [
        ("state", "queued"),
        ("state", "running"),
        ("stage", "reading"),
        ("stage", "selecting"),
        ("state", "running"),  # with cancel_requested
        ("state", "cancelled"),
    ]
    with sessions() as session:
        found = repository.after(session, (job_id, 0), 1000)
    assert [event.data["cancel_requested"] for event in found[-2:]] == [True, True]
    assert [event.final for event in found] == [False] * 5 + [True]


def test_an_event_is_there_if_and_only_if_its_change_is(sessions: Sessions) -> None:
    job_id = add_job(sessions)
    lease = begin(sessions, job_id)
    with sessions() as session:
        assert leases.finish(session, lease, State.FAILED, error={"type": "x", "title": "y"})
        session.rollback()
    assert told(sessions, job_id) == [("state", "queued"), ("state", "running")]
    end(sessions, lease, State.FAILED)
    assert told(sessions, job_id)[-1] == ("state", "failed")
    with sessions() as session:
        session.delete(session.get_one(Job, job_id))
        session.commit()
        assert session.scalar(select(func.count()).select_from(JobEvent)) == 0


def test_progress_is_thinned_the_more_the_longer_a_stage_lasts(sessions: Sessions) -> None:
    job_id = add_job(sessions)
    lease = begin(sessions, job_id)

    def report(done: int) -> bool:
        """Whether a progress was told of."""
        before = len(told(sessions, job_id))
        with sessions() as session:
            leases.extend(session, lease, 60, stage=Stage.READING, progress=progress(done))
        return len(told(sessions, job_id)) > before

    assert report(0)  # the stage itself
    pretend(sessions, job_id, stage_s=1, last_s=1)
    assert report(1)
    assert told(sessions, job_id)[-1] == ("progress", 1)
    # From a second at first to a fiftieth of the stage's time so far, and half a minute at most. What is not told in
    # time is not told: 3 seconds of a slow machine lie between each number and its limit.
    for done, stage_s, last_s, expected in (
        (2, 10, -3, False),
        (3, 10, 1, True),
        (4, 500, 7, False),
        (5, 500, 10.1, True),
        (6, 1000, 17, False),
        (7, 1000, 20.1, True),
        (8, 86400, 27, False),
        (9, 86400, 30.1, True),
    ):
        pretend(sessions, job_id, stage_s=stage_s, last_s=last_s)
        assert report(done) is expected, (stage_s, last_s)


def test_the_progress_of_a_parked_job_is_that_of_its_shards(sessions: Sessions) -> None:
    job_id = add_job(sessions)
    lease = begin(sessions, job_id)
    with sessions() as session:
        waiting = parking.park_job(session, lease, parking.SHARDS, {0: 60, 1: 40}, JobPlan())
        assert session.get_one(Job, job_id).progress == {
            "done": 0, "total": 100, "unit": "samples", "rate": None, "eta_s": None
        }  # fmt: skip
    with sessions() as session:
        session.execute(text("UPDATE jobs SET updated_at = updated_at - interval '1 minute'"))
        session.commit()
    time.sleep(0.6)
    with sessions() as session:
        first, second = (leases.claim(session, Shard, shard.id, 1, 60) for shard in waiting)
        assert first
        assert second
        leases.extend(session, first, 60, progress=progress(10) | {"rate": 2.5, "tokens_per_s": 250.0})
    time.sleep(0.6)
    with sessions() as session:
        leases.extend(session, second, 60, progress=progress(20) | {"rate": 1.5, "tokens_per_s": 150.0})
        assert session.get_one(Job, job_id).progress == {
            "done": 30, "total": 100, "unit": "samples", "rate": 4, "eta_s": 17.5, "tokens_per_s": 400
        }  # fmt: skip
    assert told(sessions, job_id)[2] == ("stage", "gradients")


def test_shards_never_wait_for_the_row_of_their_job(sessions: Sessions) -> None:
    """Parking deletes shards with the job's row in hand: a shard that waited for that row would be a deadlock."""
    job_id = add_job(sessions)
    with sessions() as session:
        (waiting,) = parking.park_job(session, begin(sessions, job_id), parking.SHARDS, {0: 100}, JobPlan())
    with sessions() as session:
        shard = leases.claim(session, Shard, waiting.id, 1, 60)
        assert shard is not None
    time.sleep(0.6)
    with sessions() as holder, sessions() as session:
        holder.execute(select(Job).where(Job.id == job_id).with_for_update())
        session.execute(text("SET lock_timeout = '2s'"))
        assert leases.extend(session, shard, 60, progress=progress(10)).held


def test_ids_of_a_job_grow_in_the_order_of_commits(sessions: Sessions) -> None:
    """Whoever asks for what came after the last id that he saw misses nothing, whoever writes at the same time."""
    job_id = add_job(sessions)
    lease = begin(sessions, job_id)
    with sessions() as session:
        waiting = parking.park_job(session, lease, parking.SHARDS, dict.fromkeys(range(4), 100), JobPlan())
        held = [leases.claim(session, Shard, shard.id, 1, 60) for shard in waiting]
    stop = threading.Event()

    def work(shard: leases.Lease) -> None:
        with sessions() as session:
            for done in range(1, 100):
                leases.extend(session, shard, 60, progress=progress(done))

    def pass_time() -> None:
        """So that nothing is thinned."""
        with sessions() as session:
            while not stop.is_set():
                session.execute(text("UPDATE job_events SET at = at - interval '31 seconds'"))
                session.execute(text("UPDATE jobs SET updated_at = updated_at - interval '2 seconds'"))
                session.commit()

    def read() -> list[int]:
        seen: list[int] = []
        with sessions() as session:
            while True:
                last_look = stop.is_set()
                seen += [event.id for event in repository.after(session, (job_id, seen[-1] if seen else 0), 3)]
                session.rollback()
                if last_look:
                    return seen

    with ThreadPoolExecutor(6) as pool:
        pool.submit(pass_time)
        reader = pool.submit(read)
        try:
            list(pool.map(work, [shard for shard in held if shard]))
        finally:
            stop.set()
        seen = reader.result(timeout=soon(10))
    with sessions() as session:
        assert seen == [event.id for event in repository.after(session, (job_id, 0), 1000)]
    assert len(seen) > 10


def test_the_list_and_the_stream_tell_the_same(sessions: Sessions, url: str) -> None:
    job_id = add_job(sessions)
    end(sessions, begin(sessions, job_id))
    address = f"{url}/jobs/{job_id}/events"
    listed = httpx.get(address)
    assert listed.headers["content-type"] == "application/json"
    body = listed.json()
    assert [item["data"]["state"] for item in body["items"]] == ["queued", "running", "succeeded"]
    assert body["next_after"] == body["items"][-1]["id"]
    streamed = heard(address)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    blocks = parsed(streamed.text)
    assert blocks[0] == {"retry": "2000"}
    assert [json.loads(block["data"]) for block in blocks[1:]] == body["items"]
    assert [(int(block["id"]), block["event"]) for block in blocks[1:]] == [
        (item["id"], item["kind"]) for item in body["items"]
    ]


def test_a_listener_that_comes_back_misses_nothing_and_hears_nothing_twice(sessions: Sessions, url: str) -> None:
    job_id = add_job(sessions)
    end(sessions, begin(sessions, job_id))
    address = f"{url}/jobs/{job_id}/events"
    first, second, third = (item["id"] for item in httpx.get(address).json()["items"])
    assert [item["id"] for item in httpx.get(address, params={"after": first}).json()["items"]] == [second, third]
    again = heard(f"{address}?after=0", **{"Last-Event-ID": str(first)})
    assert ids_of(again.text) == [second, third]
    # 204 is how a browser's EventSource is told that there is no more.
    over = heard(address, **{"Last-Event-ID": str(third)})
    assert (over.status_code, over.content) == (204, b"")
    assert httpx.get(address, params={"after": third}).json() == {"items": [], "next_after": third}


def until(parts: Iterator[str], last: str) -> str:
    """Read on until a text has come."""
    text = ""
    while last not in text:
        text += next(parts)
    return text


def test_a_stream_waits_beats_and_ends_with_the_job(sessions: Sessions, url: str) -> None:
    job_id = add_job(sessions)
    with httpx.stream("GET", f"{url}/jobs/{job_id}/events", headers=STREAM, timeout=30) as response:
        parts = response.iter_text()
        stream = until(parts, ": still here\n\n")
        lease = begin(sessions, job_id)
        stream += until(parts, '"state":"running"')
        end(sessions, lease)
        stream += "".join(parts)
    states = [json.loads(block["data"])["data"]["state"] for block in parsed(stream) if "id" in block]
    assert states == ["queued", "running", "succeeded"]


def test_a_stream_ends_when_its_job_is_deleted(sessions: Sessions, url: str) -> None:
    job_id = add_job(sessions)
    with httpx.stream("GET", f"{url}/jobs/{job_id}/events", headers=STREAM, timeout=10) as response:
        parts = response.iter_bytes()
        begun = next(parts)  # however slow the machine: the stream has found its job
        with sessions() as session:
            session.delete(session.get_one(Job, job_id))
            session.commit()
        stream = b"".join([begun, *parts]).decode()
    assert len(ids_of(stream)) == 1


@pytest.mark.parametrize(
    ("params", "headers"), [({"after": "-1"}, {}), ({"after": str(2**63)}, {}), ({}, {"Last-Event-ID": "x"})]
)
def test_a_place_that_cannot_be_is_refused(service: Service, params: dict[str, str], headers: dict[str, str]) -> None:
    job_id = service.submit(service.request())
    answer = service.http.get(f"/jobs/{job_id}/events", params=params, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (422, "invalid-request")
    assert service.http.get(f"/jobs/{uuid.uuid4()}/events", headers=STREAM).status_code == 404
    assert service.http.get(f"/jobs/{job_id}/events", headers={"Accept": "image/png"}).status_code == 406


def test_a_real_job_tells_of_its_stages(service: Service) -> None:
    found = service.run(service.request())
    items = service.http.get(found["links"]["events"]).json()["items"]
    states = [item["data"]["state"] for item in items if item["kind"] == "state"]
    assert states == ["queued", "running", "queued", "running", "succeeded"]
    stages = {item["data"]["stage"] for item in items if item["kind"] == "stage"}
    assert stages == {"reading", "gradients", "selecting", "publishing"}, "also those that last a moment"


def test_hundreds_listen_at_the_cost_of_one(sessions: Sessions, url: str) -> None:
    """Neither a connection nor a thread a listener; and other requests are answered meanwhile."""
    jobs = [add_job(sessions) for _ in range(10)]
    held = [begin(sessions, job_id) for job_id in jobs]

    async def follow(client: httpx.AsyncClient, job_id: uuid.UUID) -> AsyncIterator[int]:
        async with client.stream("GET", f"{url}/jobs/{job_id}/events", headers=STREAM) as response:
            async for line in response.aiter_lines():
                if line.startswith("id: "):
                    yield int(line.removeprefix("id: "))

    async def collect(client: httpx.AsyncClient, job_id: uuid.UUID, ready: asyncio.Semaphore) -> list[int]:
        seen = []
        async for event_id in follow(client, job_id):
            seen.append(event_id)
            ready.release()
        return seen

    async def listen() -> tuple[list[list[int]], int, int, float]:
        ready = asyncio.Semaphore(0)
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=60) as client, asyncio.TaskGroup() as group:
            tasks = [group.create_task(collect(client, jobs[i % 10], ready)) for i in range(LISTENERS)]
            for _ in range(2 * LISTENERS):
                await ready.acquire()  # all have heard of the first two states
            with sessions() as session:
                connections = session.scalar(
                    text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
                )
            threads = threading.active_count()
            began = time.monotonic()
            assert (await client.get(f"{url}/jobs/{jobs[0]}")).status_code == 200
            answered = time.monotonic() - began
            for lease in held:
                await asyncio.to_thread(end, sessions, lease)
        return [task.result() for task in tasks], int(connections or 0), threads, answered

    before = threading.active_count()
    seen, connections, threads, answered = asyncio.run(asyncio.wait_for(listen(), 60))
    for i, ids in enumerate(seen):
        assert len(ids) == 3
        assert ids == sorted(set(ids)) == seen[i % 10]
    assert connections <= 2 * 2 + 2, "the API's pool of 2 with as many beyond, and the test's own"
    assert threads - before < 60, "the thread pools of the server have 40 and a few"
    assert answered < 5
