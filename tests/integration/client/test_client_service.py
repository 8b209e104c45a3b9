"""The Python client against the real service: a real database, queue and worker, the tiny model."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import spice_client
from app.main import create_app
from spice_client import AsyncSpiceClient, SpiceClient
from tests.integration.conftest import real_rows
from tests.integration.served import served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Service


@pytest.fixture
def client(service: Service) -> Iterator[SpiceClient]:
    with served(create_app(service.settings)) as url, SpiceClient(url) as client:
        yield client


def test_from_the_submission_to_a_dataset(client: SpiceClient, service: Service, tmp_path: Path) -> None:
    named = {"name": "nightly 7", "metadata": {"team": "search", "run": "7"}}
    asked_for = service.request(baselines=["random"])
    budget = asked_for["selection"].pop("budget")
    job = client.jobs.submit(
        dataset=asked_for["dataset"]["uri"],
        model=service.model_uri,
        budget=f"{budget['fraction']:.0%}",
        selection=asked_for["selection"],
        gradients=asked_for["gradients"],
        **named,
    )
    assert (job.state, job.ended) == ("queued", False)
    service.work()
    job = client.wait(job, progress=False, timeout=120)
    assert isinstance(job, spice_client.SucceededJob)
    assert job.result.columns is not None
    assert (job.result.columns.prompt, job.result.columns.response) == ("prompt", "response")

    subset = client.subset(job)
    assert len(subset) == job.result.selected == 12
    assert sum(subset.marginal_gains) == pytest.approx(job.result.log_det)
    picks = subset.to_list()
    assert [pick["index"] for pick in picks] == subset.indices
    assert subset.to_arrow().column("index").to_pylist() == subset.indices

    rows = client.rows(job)
    asked = real_rows()
    assert rows.to_list() == [asked[index] for index in subset.indices], "as they were picked"
    assert [picked.row for picked in rows] == rows.to_list()
    assert [(one.rank, one.index, one.marginal_gain) for one in rows] == [
        (rank, *pick) for rank, pick in enumerate(zip(subset.indices, subset.marginal_gains, strict=True))
    ]
    of_file = client.rows(job, order="file")
    with pytest.raises(ValueError, match="order 'index': give 'rank' or 'file'"):
        client.rows(job, order="index")  # type: ignore[arg-type]
    assert of_file.to_list() == [asked[index] for index in sorted(subset.indices)]
    assert all(asked[picked.index] == picked.row for picked in of_file)
    assert all(subset.indices[picked.rank] == picked.index for picked in of_file)
    assert rows.to_arrow().num_rows == 12

    assert client.curve(job, points=5).log_det[-1] == pytest.approx(job.result.log_det)
    assert set(client.curve(job).baselines) == {"random"}
    assert 0 <= client.conflicts(job).mean <= 1
    assert client.rejected(job).rejected == []
    done = client.download(job, tmp_path / "rows.jsonl", rows=True)
    assert (tmp_path / "rows.jsonl").read_bytes() == rows.content
    assert done.bytes == len(rows.content)
    assert [one.id for one in client.jobs.list(state="succeeded")] == [job.id]
    assert [one.id for one in client.jobs.list(id_prefix=str(job.id)[:9])] == [job.id]
    assert [one.id for one in client.jobs.list(name_prefix="nightly", metadata={"team": "search"})] == [job.id]
    assert not list(client.jobs.list(name_prefix="another"))
    assert not list(client.jobs.list(metadata={"team": "another"}))


def test_every_cell_of_the_notebook_runs(
    client: SpiceClient, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"SPICE_API_URL": client.url, "DATASET": service.write_dataset(real_rows()), "MODEL": service.model_uri}
    for name, value in {**given, "OUT": str(tmp_path / "out")}.items():
        monkeypatch.setenv(name, value)
    notebook = json.loads((Path(__file__).resolve().parents[3] / "examples" / "select.ipynb").read_text())
    known: dict[str, Any] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), known)  # noqa: S102 - our own notebook
            if "submit" in "".join(cell["source"]):
                service.work()
        assert not cell.get("outputs"), "a notebook is kept without what it printed"
    assert known["done"].result.selected == 6
    assert known["done"]._repr_html_()
    assert [path.name for path in known["exported"].files] == ["train.jsonl", "train.spice.json"]


def test_what_the_service_refuses(client: SpiceClient, service: Service) -> None:
    with pytest.raises(spice_client.InvalidRequest) as refusal:
        client.jobs.submit({**service.request(), "selection": {"budget": {"fraction": 2}}})
    assert refusal.value.field == "selection.budget.fraction"
    assert refusal.value.type == "invalid-request"
    with pytest.raises(spice_client.NotFound):
        client.jobs.get(uuid.uuid4())
    queued = client.jobs.submit(service.request())
    with pytest.raises(spice_client.Conflict, match="is queued"):
        client.subset(queued)
    assert client.jobs.cancel(queued).state == "cancelled"
    with pytest.raises(spice_client.JobCancelled):
        client.wait(queued)


def test_a_registered_dataset(client: SpiceClient, service: Service) -> None:
    dataset = client.datasets.register(service.write_dataset(real_rows()), name="functions")
    service.work()
    read = client.datasets.wait(dataset, timeout=120)
    assert (read.state, read.rows, read.shape, read.name) == ("succeeded", 60, "prompt_response", "functions")
    assert client.datasets.get(dataset.id) == read


def test_an_uploaded_file_is_the_dataset_of_a_job(client: SpiceClient, service: Service, tmp_path: Path) -> None:
    service.write_dataset(real_rows(), "mine.jsonl")
    kept = client.datasets.upload(tmp_path / "mine.jsonl")
    assert (kept.name, kept.bytes) == ("mine.jsonl", (tmp_path / "mine.jsonl").stat().st_size)
    asked = service.request()
    job = client.jobs.submit(dataset=kept, model=service.model_uri, budget=3, gradients=asked["gradients"])
    service.work()
    assert client.wait(job, timeout=120).result.rows_total == len(real_rows())

    async def likewise() -> spice_client.Upload:
        async with AsyncSpiceClient(client.url) as other:
            return await other.datasets.upload(str(tmp_path / "mine.jsonl"), name="yours.jsonl")

    again = asyncio.run(likewise())
    assert (again.id, again.name) == (kept.id, "yours.jsonl")
    with pytest.raises(spice_client.NothingThere, match="is no file here"):
        client.datasets.upload(tmp_path)
    with pytest.raises(spice_client.InvalidRequest) as refusal:
        client.datasets.upload(tmp_path / "mine.jsonl", name="mine.docx")
    assert refusal.value.field == "name"


def test_many_jobs_at_once_in_an_event_loop(client: SpiceClient, service: Service) -> None:
    async def run() -> list[list[int]]:
        async with AsyncSpiceClient(client.url) as loop:
            bodies = [service.request(budget={"count": count}) for count in (2, 3, 4)]
            jobs = await asyncio.gather(*(loop.jobs.submit(body) for body in bodies))
            service.work()  # in this thread, and so before the waiting: RQ wants the main one
            await asyncio.gather(*(loop.wait(job, timeout=120) for job in jobs))
            return [(await loop.subset(job)).indices for job in jobs]

    assert [len(indices) for indices in asyncio.run(run())] == [2, 3, 4]


@pytest.mark.parametrize(("package", "convert"), [("pyarrow", "to_arrow"), ("pandas", "to_pandas")])
def test_a_package_that_is_missing_is_named(package: str, convert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    subset = spice_client.Subset("a", [1], [0.5], [0.0], [0.0], [0.5])
    with pytest.raises(spice_client.PackageMissing, match=f"pip install {package}"):
        getattr(subset, convert)()
