"""The client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self, Unpack, overload

from spice_client import comparison, datasets, estimates, jobs, proofs, results, waiting
from spice_client.binding import blocking
from spice_client.connection import Connection
from spice_client.exports import operation as exporting
from spice_client.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from spice_client.jobs import Filters
    from spice_client.models import Job, SucceededJob
    from spice_client.paths import JobLike
    from spice_client.progress import View
    from spice_client.retrying import Patience


class Jobs:
    """Jobs of the service: `client.jobs`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    submit = blocking(jobs.submit)
    get = blocking(jobs.get)
    cancel = blocking(jobs.cancel)
    delete = blocking(jobs.delete)
    update = blocking(jobs.update)

    def list(self, **filters: Unpack[Filters]) -> Iterator[Job]:
        """Jobs, newest first; further pages are fetched as they are needed.

        Args:
            filters: `state`, `id_prefix`, `name`, `name_prefix`, `metadata`, `dataset_uri`, all of which must hold;
                `page_size`, the jobs of one request.
        """
        cursor = None
        while True:
            page = self._transport.run(jobs.page(cursor, filters))
            yield from page.items
            cursor = page.next_cursor
            if not cursor:
                return


class Datasets:
    """Registered datasets of the service: `client.datasets`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    upload = blocking(datasets.upload)
    register = blocking(datasets.register)
    get = blocking(datasets.get)
    wait = blocking(waiting.wait_for_dataset)


class Proofs:
    """Proofs of the service: `client.proofs`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    submit = blocking(proofs.submit)
    get = blocking(proofs.get)
    page = blocking(proofs.page)
    cancel = blocking(proofs.cancel)
    delete = blocking(proofs.delete)
    runs = blocking(proofs.runs)
    report = blocking(proofs.report)
    wait = blocking(proofs.wait)


class SpiceClient:
    """The service, from a program.

    ```python
    with SpiceClient() as client:
        job = client.jobs.submit(dataset="train.jsonl", model="models/smollm2", budget="10%")
        client.wait(job)
        picked = dataset.select(client.subset(job).indices)
    ```

    It may be used from several threads.

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
        self._transport = Transport(connection)
        self.jobs = Jobs(self._transport)
        self.datasets = Datasets(self._transport)
        self.proofs = Proofs(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    estimate = blocking(estimates.estimate)

    @overload
    def wait(
        self,
        job: JobLike,
        *,
        timeout: float | None = None,
        every: float = 2.0,
        progress: bool | View | None = None,
        check: Literal[True] = True,
    ) -> SucceededJob: ...

    @overload
    def wait(
        self,
        job: JobLike,
        *,
        timeout: float | None = None,
        every: float = 2.0,
        progress: bool | View | None = None,
        check: bool,
    ) -> Job: ...

    def wait(
        self,
        job: JobLike,
        *,
        timeout: float | None = None,
        every: float = 2.0,
        progress: bool | View | None = None,
        check: bool = True,
    ) -> Job:
        """Wait until a job ends; with `check`, which is the default, for a result: see `spice_client.waiting.wait`."""
        return self._transport.run(waiting.wait(job, timeout=timeout, every=every, progress=progress, check=check))

    subset = blocking(results.subset)
    changes = blocking(results.changes)
    rows = blocking(results.rows)
    download = blocking(results.download)
    report = blocking(results.report)
    export = blocking(exporting.export)
    compare = blocking(comparison.compare)
    curve = blocking(results.curve)
    conflicts = blocking(results.conflicts)
    rejected = blocking(results.rejected)
    league = blocking(results.league)
    suspects = blocking(results.suspects)
    scores = blocking(results.scores)
