"""Commands on jobs: submit, watch, list, cancel, delete. They speak HTTP and need no settings but the URL."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from spice_client.cli.estimate import show_estimate
from spice_client.cli.exit_codes import OF_STATE, ExitCode
from spice_client.cli.failure import refusal, show_problem
from spice_client.cli.ids import JobId, JobIds, whole_id, whole_ids
from spice_client.cli.options import (
    PATIENCE_S,
    URL,
    ApiKey,
    AsJson,
    Budget,
    DatasetName,
    ModelName,
    Url,
    WaitS,
    Yes,
    agreed,
    echo_json,
    service,
)
from spice_client.cli.request import RequestFlags, build_job_request, pairs
from spice_client.cli.show import show_job, show_jobs, show_whole_job
from spice_client.cli.upload import offering_upload
from spice_client.models import State  # noqa: TC001 - Typer reads the annotations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spice_client.client import SpiceClient
    from spice_client.models import Job

INTERRUPTED = 130
WATCH_S = 60.0


Every = Annotated[float, typer.Option(min=0.1, help="Seconds between two looks, where events are not streamed.")]


def submit(  # noqa: PLR0913 - one parameter for each flag
    request: Annotated[
        str | None, typer.Argument(metavar="REQUEST.json", help="The request; `-` reads stdin.", show_default=False)
    ] = None,
    *,
    dataset: DatasetName = None,
    model: ModelName = None,
    budget: Budget = None,
    extends: Annotated[
        str | None, typer.Option(metavar="JOB", help="Keep this job's picks; the budget is what is added to them.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="A name for the job.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Fills in the rest: `paper-qwen2-7b`, `paper-llama2-7b` or `authors-code`."),
    ] = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Metadata; repeatable.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Any field, as in `selection.conflict_penalty=0.2`."),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="Names this submission: sent twice with the same key, it makes one job.", show_default=False),
    ] = None,
    upload: Annotated[
        bool,
        typer.Option("--upload", help="Upload the file of `--dataset` first, for a service that does not see it."),
    ] = False,
    only_estimate: Annotated[
        bool, typer.Option("--estimate", help="Only tell what the job would take, as `spice estimate` does.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Stay until the job ends, as `spice watch` does.")] = False,
    every: Every = 1.0,
    patience: WaitS = WATCH_S,
    url: Url = URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Submit a selection job; prints its id.

    The request comes out of a JSON file, of flags, or of both: flags override the file.
    """
    flags = RequestFlags(dataset, model, budget, name, metadata or [], setting or [], preset)
    with service(url, api_key, patience_s=patience, as_json=as_json) as client:
        if upload and dataset is None:
            raise refusal("Wrong usage", "--upload sends the file that --dataset names: give --dataset FILE")
        asked = build_job_request(request, flags)
        if upload and dataset is not None:
            asked["dataset"]["uri"] = client.datasets.upload(dataset).uri
        if extends is not None:
            asked["extends"] = whole_id(client, extends)
        if only_estimate:
            show_estimate(client.estimate(asked), as_json=as_json)
            return
        with offering_upload(dataset):
            job = client.jobs.submit(asked, idempotency_key=idempotency_key)
        if watch:
            _watch(client, str(job.id), every, as_json=as_json)
        else:
            _print(job, as_json=as_json)


def watch(
    job_id: JobId,
    *,
    every: Every = 1.0,
    patience: WaitS = WATCH_S,
    url: Url = URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Follow a job until it ends: stage, rate, time left. Ctrl-C stops the watching, not the job."""
    with service(url, api_key, patience_s=patience, from_the_start=True, as_json=as_json) as client:
        _watch(client, whole_id(client, job_id), every, as_json=as_json)


def show(
    job_id: JobId, *, patience: WaitS = PATIENCE_S, url: Url = URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Show a job: what was asked for, how far it is, what came of it, what can be done with it."""
    with service(url, api_key, patience_s=patience, as_json=as_json) as client:
        job = client.jobs.get(whole_id(client, job_id))
    if as_json:
        echo_json(job.document())
    else:
        show_whole_job(job)


def open_page(
    job_id: JobId, *, patience: WaitS = PATIENCE_S, url: Url = URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Open a job's page in the browser; prints its address."""
    with service(url, api_key, patience_s=patience, as_json=as_json) as client:
        address = f"{client.url}/#/jobs/{client.jobs.get(whole_id(client, job_id)).id}"
    if as_json:
        echo_json({"url": address})
    else:
        typer.echo(address)
        typer.launch(address)


def cancel(
    job_id: JobId, *, patience: WaitS = PATIENCE_S, url: Url = URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Cancel a job that has not ended. A running one stops within seconds."""
    with service(url, api_key, patience_s=patience, as_json=as_json) as client:
        _print(client.jobs.cancel(whole_id(client, job_id)), as_json=as_json)


def delete(
    job_ids: JobIds,
    *,
    yes: Yes = False,
    patience: WaitS = PATIENCE_S,
    url: Url = URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Delete jobs that have ended, with their subsets. There is no way back."""
    with service(url, api_key, patience_s=patience, as_json=as_json) as client:
        ids = list(dict.fromkeys(whole_ids(client, job_ids)))  # each once: the second time it would not be there
        if not yes and not agreed(f"Delete {_named(client, ids)} and what was picked, for good?"):
            raise typer.Exit(ExitCode.REFUSED)
        for job_id in ids:
            client.jobs.delete(job_id)
            if not as_json:
                typer.echo(f"job {job_id} is deleted")
    if as_json:
        echo_json({"deleted": ids})


def _named(client: SpiceClient, ids: Sequence[str]) -> str:
    """One job by its name, several by their number."""
    return client.jobs.get(ids[0]).summary() if len(ids) == 1 else f"{len(ids)} jobs"


def list_jobs(  # noqa: PLR0913 - one parameter for each flag
    *,
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.")] = None,
    name_prefix: Annotated[str | None, typer.Option(help="Only jobs whose names begin with this.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only jobs with it; repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 50,
    patience: WaitS = PATIENCE_S,
    url: Url = URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first. With --json: one array of jobs."""
    with service(url, api_key, patience_s=patience, as_json=as_json) as client:
        entries = pairs("--metadata", metadata or ())
        sought = limit if as_json else limit + 1  # one more tells a person whether that is all
        jobs = list(islice(client.jobs.list(state=state, name_prefix=name_prefix, metadata=entries), sought))
    if as_json:
        echo_json([job.document() for job in jobs])
        return
    show_jobs(jobs[:limit])
    if len(jobs) > limit:
        typer.echo(f"the newest {limit} alone: there are more, see --limit", err=True)


def _watch(client: SpiceClient, job_id: str, every_s: float, *, as_json: bool) -> None:
    try:
        job = client.wait(job_id, every=every_s, progress=True, check=False)
    except KeyboardInterrupt:
        typer.echo(f"The job goes on; to see how far it is: spice watch {job_id}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    _print(job, as_json=as_json)
    code = OF_STATE[job.state]
    if code is ExitCode.JOB_FAILED and not as_json:
        show_problem(job.error.document() if job.error else {"title": "The job failed"})
    raise typer.Exit(code)


def _print(job: Job, *, as_json: bool) -> None:
    if as_json:
        echo_json(job.document())
    else:
        show_job(job)
