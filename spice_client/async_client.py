"""The client for event loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self, Unpack, overload

from spice_client import comparison, datasets, estimates, jobs, proofs, results, waiting
from spice_client.async_transport import AsyncTransport
from spice_client.binding import awaitable
from spice_client.connection import Connection
from spice_client.exports import operation as exporting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from spice_client.jobs import Filters
    from spice_client.models import Job, SucceededJob
    from spice_client.paths import JobLike
    from spice_client.progress import View
    from spice_client.retrying import Patience


class AsyncJobs:
    """Jobs of the service: `client.jobs`."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    submit = awaitable(jobs.submit)
    get = awaitable(jobs.get)
    cancel = awaitable(jobs.cancel)
    delete = awaitable(jobs.delete)
    update = awaitable(jobs.update)

    async def list(self, **filters: Unpack[Filters]) -> AsyncIterator[Job]:
        """Jobs, newest first; further pages are fetched as they are needed.

        Args:
            filters: `state`, `id_prefix`, `name`, `name_prefix`, `metadata`, `dataset_uri`, all of which must hold;
                `page_size`, the jobs of one request.
        """
        cursor = None
        while True:
            page = await self._transport.run(jobs.page(cursor, filters))
            for job in page.items:
                yield job
            cursor = page.next_cursor
            if not cursor:
                return


class AsyncDatasets:
    """Registered datasets of the service: `client.datasets`."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    upload = awaitable(datasets.upload)
    register = awaitable(datasets.register)
    get = awaitable(datasets.get)
    wait = awaitable(waiting.wait_for_dataset)


class AsyncProofs:
    """Proofs of the service: `client.proofs`."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    submit = awaitable(proofs.submit)
    get = awaitable(proofs.get)
    page = awaitable(proofs.page)
    cancel = awaitable(proofs.cancel)
    delete = awaitable(proofs.delete)
    runs = awaitable(proofs.runs)
    report = awaitable(proofs.report)
    wait = awaitable(proofs.wait)


class AsyncSpiceClient:
    """The service, from an event loop: as `SpiceClient`, with methods to await.

    ```python
    async with AsyncSpiceClient() as client:
        job = await client.jobs.submit(request)
        await client.wait(job)
        indices = (await client.subset(job)).indices
    ```

    Args:
        url: Where the service is; left out, `SPICE_API_URL`, else `http://127.0.0.1:8000`.
        api_key: Left out, `SPICE_API_KEY`.
        patience: How long what passes by itself is sat out; seconds, or a `Patience`.

    Raises:
        UrlInvalid: The URL is none.
        KeyInvalid: The key is none.
    """

    def __init__(
        self, url: str | None = None, *, api_key: str | None = None, patience: float | Patience = 60.0
    ) -> None:
        connection = Connection.to(url, api_key, patience)
        self.url = connection.url
        self._transport = AsyncTransport(connection)
        self.jobs = AsyncJobs(self._transport)
        self.datasets = AsyncDatasets(self._transport)
        self.proofs = AsyncProofs(self._transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    estimate = awaitable(estimates.estimate)

    @overload
    async def wait(
        self,
        job: JobLike,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - of the job, not of the call
        every: float = 2.0,
        progress: bool | View | None = None,
        check: Literal[True] = True,
    ) -> SucceededJob: ...

    @overload
    async def wait(
        self,
        job: JobLike,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - of the job, not of the call
        every: float = 2.0,
        progress: bool | View | None = None,
        check: bool,
    ) -> Job: ...

    async def wait(
        self,
        job: JobLike,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - of the job, not of the call
        every: float = 2.0,
        progress: bool | View | None = None,
        check: bool = True,
    ) -> Job:
        """Wait until a job ends; with `check`, which is the default, for a result: see `spice_client.waiting.wait`."""
        return await self._transport.run(
            waiting.wait(job, timeout=timeout, every=every, progress=progress, check=check)
        )

    subset = awaitable(results.subset)
    changes = awaitable(results.changes)
    rows = awaitable(results.rows)
    download = awaitable(results.download)
    report = awaitable(results.report)
    export = awaitable(exporting.export)
    compare = awaitable(comparison.compare)
    curve = awaitable(results.curve)
    conflicts = awaitable(results.conflicts)
    rejected = awaitable(results.rejected)
    league = awaitable(results.league)
    suspects = awaitable(results.suspects)
    scores = awaitable(results.scores)
