"""Datasets and models to choose from: what a job may name, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from app.core.settings import Settings
from app.core.uris.datasets import UriRefused, check_uri
from app.files import found as module
from app.files.found import look

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Service


def allowed(*roots: Path, **changed: object) -> Settings:
    given = Settings.model_construct(allowed_roots=tuple(map(str, roots)), allowed_schemes=("file",))
    return given.model_copy(update=changed)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for name in ("train.jsonl", "more/rows.csv.gz", "more/deep/a/b/c.jsonl", "notes.txt", ".hidden.jsonl", "q4.gguf"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * 7)
    model = root / "models" / "small"
    model.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        (model / name).write_text("{}")
    return root


def test_datasets_and_models_are_told_apart_with_names_that_can_be_read(root: Path) -> None:
    found = look(allowed(root))
    assert [(place.name, place.bytes) for place in found.datasets] == [
        ("data/more/rows.csv.gz", 7),
        ("data/train.jsonl", 7),
    ]
    assert [(place.name, place.bytes) for place in found.models] == [("data/models/small", None), ("data/q4.gguf", 7)]
    assert found.datasets[1].uri == (root / "train.jsonl").as_uri()
    assert not found.complete, "one lies too deep"
    assert not look(allowed(root, allowed_schemes=("https",))).datasets


def test_a_link_that_leads_out_is_not_offered(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text("{}")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.jsonl").write_text("{}")
    (root / "out.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (root / "dir").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    assert {place.name for place in look(allowed(root)).datasets} == {"data/more/rows.csv.gz", "data/train.jsonl"}


def test_a_large_directory_is_looked_through_in_part(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_TOLD", 1)
    assert [place.name for place in look(allowed(root)).datasets] == ["data/more/rows.csv.gz"]
    monkeypatch.setattr(module, "MOST_LOOKED_AT", 0)
    found = look(allowed(root))
    assert (found.datasets, found.complete) == ([], False)


def test_what_lies_in_two_allowed_directories_is_named_by_the_first_and_comes_first(root: Path) -> None:
    (root / "a.csv").touch()
    names = [place.name for place in look(allowed(root / "more", root)).datasets]
    assert names == ["more/deep/a/b/c.jsonl", "more/rows.csv.gz", "data/a.csv", "data/train.jsonl"]


def test_what_the_service_keeps_is_neither_offered_nor_read(root: Path) -> None:
    settings = allowed(root, data_dir=root / "var")
    for name in ("cache/datasets/ab.jsonl", "artifacts/jobs/1/rows.jsonl", "datasets/mine.jsonl"):
        path = root / "var" / name
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    assert [place.name for place in look(settings).datasets if "var" in place.name] == ["data/var/datasets/mine.jsonl"]
    for name in ("cache/datasets/ab.jsonl", "artifacts/jobs/", "cache/*/*.jsonl"):
        with pytest.raises(UriRefused, match="where the service keeps what it read and made"):
            check_uri(f"{root.as_uri()}/var/{name}", settings)


def test_what_is_offered_can_be_named_by_a_job(service: Service) -> None:
    uri = service.write_dataset([{"prompt": "2+2?", "response": "4"}], "offered.jsonl")
    found = service.http.get("/files").json()
    assert uri in [one["uri"] for one in found["datasets"]]
    assert service.model_uri.rstrip("/") in [one["uri"] for one in found["models"]]
