"""The Python client, with and without asyncio, against a stand-in that fails when a test wants it to.

That it fits the real service is in `test_client_service.py`.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

import spice_client
from app.datasets.schemas import EXAMPLE_DATASET
from app.jobs.schemas import EXAMPLE_JOB
from app.local.process import free_port
from spice_client import AsyncSpiceClient, Job, Patience, SpiceClient
from tests.integration.deadlines import soon
from tests.integration.served import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from spice_client import SpiceError

JOB_ID = EXAMPLE_JOB["id"]
REQUEST = {
    "dataset": {"uri": "file:///data/train.jsonl"},
    "model": {"uri": "file:///models/tiny"},
    "selection": {"budget": {"fraction": 0.1}},
}
RESULT = {
    "rows_total": 10,
    "rows_usable": 10,
    "selected": 3,
    "truncated": 0,
    "rejected": [],
    "tokens": 100,
    "log_det": 1.5,
    "alpha": 0.25,
    "stop_reason": "budget",
    "certificate": {"value": 0.8, "optimum_upper_bound": 1.875, "epsilon_bound_violations": 0},
    "mean_conflict": 0.0,
    "format": "jsonl",
    "fingerprint": "sha256:00",
    "model_revision": "00",
    "sketches": "00",
    "sketches_reused": False,
    "seconds": {},
    "baselines": {},
    "versions": {},
}
BODY = bytes(range(256)) * 4096


def problem(status: int, kind: str, headers: dict[str, str] | None = None, **more: Any) -> JSONResponse:
    content = {"type": kind, "title": "A problem", "status": status, "detail": "so it is", **more}
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def job(state: str, **more: Any) -> dict[str, Any]:
    more = {"result": RESULT, **more} if state == "succeeded" else more
    return {**EXAMPLE_JOB, "state": state, "stage": None, "progress": None, **more}


class StandIn:
    """Answers with what was laid out; keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Any] = []
        self.asked: list[Request] = []
        self.bodies: list[bytes] = []
        self.events: Callable[[Request], Response] | None = None
        self.app = FastAPI()
        self.app.add_route("/jobs/{job_id}/events", self._events)
        self.app.add_route("/{path:path}", self._answer, methods=["GET", "POST", "PATCH", "DELETE"])

    async def _answer(self, request: Request) -> Response:
        self.asked.append(request)
        self.bodies.append(await request.body())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer) and not isinstance(answer, Response):
            answer = answer(request)
        return answer if isinstance(answer, Response) else JSONResponse(answer)

    def _events(self, request: Request) -> Response:
        return self.events(request) if self.events else problem(404, "not-found")


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
def url(stand_in: StandIn) -> Iterator[str]:
    with served(stand_in.app) as url:
        yield url


@pytest.fixture(params=["blocking", "asyncio"])
def do(request: pytest.FixtureRequest, url: str) -> Callable[..., Any]:
    """Carry out what a function asks of a client: `do(lambda client: client.jobs.get(id))`, with either client."""

    def blocking(asking: Callable[[Any], Any], **how: Any) -> Any:
        with SpiceClient(**{"url": url, **how}) as client:
            return asking(client)

    async def _awaiting(asking: Callable[[Any], Any], how: dict[str, Any]) -> Any:
        async with AsyncSpiceClient(**{"url": url, **how}) as client:
            return await asking(client)

    def awaiting(asking: Callable[[Any], Any], **how: Any) -> Any:
        return asyncio.run(_awaiting(asking, how))

    return blocking if request.param == "blocking" else awaiting


Do = "Callable[..., Any]"


def test_a_submission_is_tried_again_with_the_same_key(stand_in: StandIn, do: Do) -> None:
    told: list[SpiceError] = []
    stand_in.answers = [problem(503, "unavailable"), problem(429, "quota", {"Retry-After": "1"}), job("queued")]
    began = time.monotonic()
    submitted = do(lambda client: client.jobs.submit(REQUEST), patience=Patience(30, waiting=told.append))
    assert time.monotonic() - began > 1.0, "as long as Retry-After says"
    assert isinstance(submitted, Job)
    assert [type(error).__name__ for error in told] == ["ServiceFault", "TooManyRequests"]
    keys = {request.headers["Idempotency-Key"] for request in stand_in.asked}
    assert len(keys) == 1
    assert json.loads(stand_in.bodies[-1]) == REQUEST


@pytest.mark.parametrize(
    ("answer", "asking"),
    [
        (job("cancelled"), lambda client: client.jobs.cancel(JOB_ID)),
        (EXAMPLE_DATASET, lambda client: client.datasets.register("file:///data/train.jsonl")),
    ],
    ids=["cancel", "register"],
)
def test_every_post_is_tried_again_with_the_same_key(stand_in: StandIn, do: Do, answer: Any, asking: Any) -> None:
    stand_in.answers = [problem(503, "unavailable"), answer]
    do(asking)
    first, again = (request.headers["Idempotency-Key"] for request in stand_in.asked)
    assert first == again


def test_a_submission_that_is_still_carried_out_is_waited_for(stand_in: StandIn, do: Do) -> None:
    stand_in.answers = [problem(409, "idempotency-key-in-use", {"Retry-After": "0"}), job("queued")]
    assert str(do(lambda client: client.jobs.submit(REQUEST)).id) == JOB_ID
    assert len({request.headers["Idempotency-Key"] for request in stand_in.asked}) == 1


def test_two_submissions_have_two_keys_unless_they_are_named(stand_in: StandIn, do: Do) -> None:
    stand_in.answers = [job("queued")]
    for _ in range(2):
        do(lambda client: client.jobs.submit(REQUEST))
    do(lambda client: client.jobs.submit(REQUEST, idempotency_key="tonight"))
    first, second, named = (request.headers["Idempotency-Key"] for request in stand_in.asked)
    assert first != second
    assert named == "tonight"


def test_patience_ends(stand_in: StandIn, do: Do) -> None:
    stand_in.answers = [problem(503, "unavailable")]
    with pytest.raises(spice_client.ServiceFault) as failure:
        do(lambda client: client.jobs.get(JOB_ID), patience=0.3)
    assert failure.value.type == "unavailable"
    stand_in.answers = [problem(429, "quota", {"Retry-After": "3600"})]
    with pytest.raises(spice_client.TooManyRequests) as refused:
        do(lambda client: client.jobs.get(JOB_ID), patience=5)
    assert refused.value.retry_after == 3600


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, "NotAuthenticated"),
        (403, "NotAllowed"),
        (404, "NotFound"),
        (409, "Conflict"),
        (418, "Refused"),
        (422, "InvalidRequest"),
        (500, "ServiceFault"),
    ],
)
def test_a_problem_is_an_exception_that_carries_it(stand_in: StandIn, do: Do, status: int, kind: str) -> None:
    errors = [{"field": "selection.budget", "message": "is too large"}]
    stand_in.answers = [problem(status, "some-type", errors=errors)]
    with pytest.raises(spice_client.Refused) as refusal:
        do(lambda client: client.jobs.submit(REQUEST))
    error = refusal.value
    assert type(error) is getattr(spice_client, kind)
    assert (error.status, error.type, error.detail, error.field) == (
        status,
        "some-type",
        "so it is",
        "selection.budget",
    )
    assert len(stand_in.asked) == 1, "it would be refused again"


def test_the_key_is_sent_and_not_shown(stand_in: StandIn, do: Do, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.answers = [job("queued")]
    do(lambda client: client.jobs.get(JOB_ID), api_key="spice_one")
    monkeypatch.setenv("SPICE_API_KEY", "spice_two")
    monkeypatch.setenv("SPICE_API_URL", url)
    do(lambda client: client.jobs.get(JOB_ID), url=None)
    assert [request.headers["Authorization"] for request in stand_in.asked] == ["Bearer spice_one", "Bearer spice_two"]


def test_no_service_at_all(do: Do) -> None:
    with pytest.raises(spice_client.ServiceUnreachable, match="does not answer"):
        do(lambda client: client.jobs.get(JOB_ID), url=f"http://127.0.0.1:{free_port()}", patience=0)
    with pytest.raises(spice_client.UrlInvalid):
        do(lambda client: client.jobs.get(JOB_ID), url="http://[::1")


def test_something_else_behind_the_url(stand_in: StandIn, do: Do) -> None:
    for other in (Response("<html>"), [], {"id": "no job"}):
        stand_in.answers = [other]
        with pytest.raises(spice_client.NotTheService):
            do(lambda client: client.jobs.get(JOB_ID))


def test_a_request_in_keyword_arguments_is_the_api_s(stand_in: StandIn, do: Do, tmp_path: Path) -> None:
    rows = tmp_path / "train.jsonl"
    rows.touch()
    stand_in.answers = [job("queued")]
    do(lambda client: client.jobs.submit(dataset=rows, model="file:///models/tiny", budget="10%", name="nightly"))
    assert json.loads(stand_in.bodies[-1]) == {**REQUEST, "dataset": {"uri": rows.as_uri()}, "name": "nightly"}
    do(lambda client: client.jobs.submit(REQUEST, budget=7, dataset=JOB_ID))
    assert json.loads(stand_in.bodies[-1]) == {
        **REQUEST,
        "dataset": {"id": JOB_ID},
        "selection": {"budget": {"count": 7}},
    }
    with pytest.raises(spice_client.NothingThere, match=r"dataset: /nowhere\.jsonl is not there"):
        do(lambda client: client.jobs.submit(REQUEST, dataset="/nowhere.jsonl"))
    assert len(stand_in.asked) == 2


def test_a_deletion_whose_answer_was_lost_is_done(stand_in: StandIn, do: Do) -> None:
    stand_in.answers = [problem(503, "unavailable"), problem(404, "job-not-found")]
    do(lambda client: client.jobs.delete(JOB_ID))
    assert [request.method for request in stand_in.asked] == ["DELETE", "DELETE"]
    stand_in.answers = [problem(404, "job-not-found")]
    with pytest.raises(spice_client.NotFound):
        do(lambda client: client.jobs.delete(JOB_ID))


def test_an_update_sends_what_is_given_and_no_more(stand_in: StandIn, do: Do) -> None:
    stand_in.answers = [job("succeeded")]
    do(lambda client: client.jobs.update(JOB_ID, name="better", expires_at=None))
    assert json.loads(stand_in.bodies[-1]) == {"name": "better", "expires_at": None}
    assert stand_in.asked[-1].method == "PATCH"


def test_an_id_cannot_leave_its_place_in_the_path(stand_in: StandIn, do: Do) -> None:
    stand_in.answers = [job("queued")]
    do(lambda client: client.jobs.get("../datasets?x"))
    assert stand_in.asked[-1].scope["raw_path"] == b"/jobs/..%2Fdatasets%3Fx"


def event(number: int, kind: str, at: str = "2026-11-24T04:00:00Z", **data: Any) -> bytes:
    item = {"id": number, "at": at, "kind": kind, "data": data}
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(item)}\n\n".encode()


class Shown:
    """A view that keeps what it is shown."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, str | None]] = []
        self.done: list[int] = []
        self.outages = 0

    def show(self, job: Job) -> None:
        self.stages.append((job.state, job.stage))
        if job.progress:
            self.done.append(job.progress.done)

    def waiting(self, _failure: SpiceError) -> None:
        self.outages += 1


def test_waiting_hears_the_events_and_asks_twice(stand_in: StandIn, do: Do) -> None:
    async def stream() -> AsyncIterator[bytes]:
        yield event(1, "state", "2026-11-24T03:00:00Z", state="queued", cancel_requested=False, error=None)
        yield b": still here\n\n"
        yield event(2, "stage", stage="gradients")
        for done in (10, 20):
            numbers = {"done": done, "total": 30, "unit": "samples", "rate": None, "eta_s": None}
            yield event(3 + done, "progress", stage="gradients", **numbers)
        yield event(40, "state", state="succeeded", cancel_requested=False, error=None)

    stand_in.events = lambda _request: StreamingResponse(stream(), media_type="text/event-stream")
    stand_in.answers = [job("running", stage="reading"), job("succeeded")]
    shown = Shown()
    ended = do(lambda client: client.wait(JOB_ID, progress=shown))
    assert ended.state == "succeeded"
    assert len(stand_in.asked) == 2
    assert shown.done == [10, 20]
    assert ("queued", None) not in shown.stages, "what was before is not shown"
    assert shown.stages[-1] == ("succeeded", None)


def test_waiting_looks_now_and_then_where_events_are_not_streamed(stand_in: StandIn, do: Do) -> None:
    outage = problem(503, "unavailable")
    stand_in.answers = [job("queued"), job("running"), outage, job("running"), job("succeeded")]
    shown = Shown()
    began = time.monotonic()
    do(lambda client: client.wait(JOB_ID, every=0.05, progress=shown))
    assert time.monotonic() - began < soon(5)
    assert [state for state, _ in shown.stages] == ["queued", "running", "running", "succeeded"]
    assert shown.outages == 1


def test_a_stream_that_breaks_is_heard_again(stand_in: StandIn, do: Do) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield event(2, "stage", stage="gradients")
        raise RuntimeError("the test breaks off here")

    stand_in.events = lambda _request: StreamingResponse(broken(), media_type="text/event-stream")
    stand_in.answers = [job("running"), job("running"), job("succeeded")]
    assert do(lambda client: client.wait(JOB_ID, progress=False)).state == "succeeded"


def test_waiting_for_a_job_that_ends_without_a_subset(stand_in: StandIn, do: Do) -> None:
    error = {"type": "empty-dataset", "title": "The dataset is empty", "detail": "no rows"}
    stand_in.answers = [job("failed", error=error)]
    with pytest.raises(spice_client.JobFailed, match="no rows") as failure:
        do(lambda client: client.wait(JOB_ID))
    assert failure.value.document == error
    assert failure.value.job.state == "failed"
    assert do(lambda client: client.wait(JOB_ID, check=False)).state == "failed"
    stand_in.answers = [job("cancelled")]
    with pytest.raises(spice_client.JobCancelled):
        do(lambda client: client.wait(JOB_ID))


def test_waiting_can_end_before_the_job(stand_in: StandIn, do: Do) -> None:
    async def silent() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b": still here\n\n"
            await asyncio.sleep(0.05)

    stand_in.answers = [job("running")]
    for events in (None, lambda _request: StreamingResponse(silent(), media_type="text/event-stream")):
        stand_in.events = events
        began = time.monotonic()
        with pytest.raises(spice_client.WaitTimedOut, match="goes on"):
            do(lambda client: client.wait(JOB_ID, timeout=0.3, every=0.05))
        assert time.monotonic() - began < soon(3)


def breaking(body: bytes, after: int, **headers: str) -> Callable[[Request], Response]:
    """A body that breaks after some bytes; with an ETag, it goes on where a range says."""

    async def some(start: int) -> AsyncIterator[bytes]:
        yield body[start : start + after]
        if start + after < len(body):
            raise RuntimeError("the test breaks off here")

    def answer(request: Request) -> Response:
        wanted = request.headers.get("Range")
        if wanted and request.headers.get("If-Range") == headers.get("ETag"):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            about = {**headers, "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            return StreamingResponse(some(start), 206, about)
        return StreamingResponse(some(0), 200, headers)

    return answer


def test_a_download_goes_on_where_it_broke(stand_in: StandIn, do: Do, tmp_path: Path) -> None:
    stand_in.answers = [breaking(BODY, 400_000, ETag='"one"')]
    done = do(lambda client: client.download(JOB_ID, tmp_path / "rows", rows=True))
    assert (done.path, done.bytes) == (tmp_path / "rows", len(BODY))
    assert (tmp_path / "rows").read_bytes() == BODY
    assert [request.headers.get("Range") for request in stand_in.asked] == [None, "bytes=400000-", "bytes=800000-"]


def test_a_download_of_what_has_changed_meanwhile_begins_anew(stand_in: StandIn, do: Do, tmp_path: Path) -> None:
    stand_in.answers = [breaking(b"old" * 1000, 1000, ETag='"old"'), breaking(BODY, len(BODY), ETag='"new"')]
    do(lambda client: client.download(JOB_ID, tmp_path / "rows"))
    assert (tmp_path / "rows").read_bytes() == BODY
    assert list(tmp_path.iterdir()) == [tmp_path / "rows"]


def test_a_download_that_gets_no_further_gives_up(stand_in: StandIn, do: Do, tmp_path: Path) -> None:
    stand_in.answers = [breaking(BODY, 1000)]
    with pytest.raises(spice_client.ServiceUnreachable):
        do(lambda client: client.download(JOB_ID, tmp_path / "rows"), patience=0.5)
    assert not list(tmp_path.iterdir())


def test_the_list_follows_the_pages(stand_in: StandIn, url: str) -> None:
    pages = [
        {"items": [job("queued", name=name)], "next_cursor": following} for name, following in (("a", "1"), ("b", None))
    ]

    async def names() -> list[str | None]:
        async with AsyncSpiceClient(url) as client:
            return [one.name async for one in client.jobs.list(state="queued")]

    stand_in.answers = [*pages]
    with SpiceClient(url) as client:
        assert [one.name for one in client.jobs.list(state="queued")] == ["a", "b"]
    assert [dict(request.query_params) for request in stand_in.asked] == [
        {"state": "queued"},
        {"state": "queued", "cursor": "1"},
    ]
    stand_in.answers = [*pages]
    assert asyncio.run(names()) == ["a", "b"]
