"""Which models a client may name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from app.core.uris.datasets import UriRefused
from app.core.uris.models import check_model_uri

if TYPE_CHECKING:
    from pathlib import Path

    from tests.own_directory import SettingsFactory

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_local_model_is_a_directory_or_a_gguf_file_inside_the_roots(
    root: Path, make_settings: SettingsFactory
) -> None:
    (root / "model").mkdir()
    (root / "a.GGUF").write_bytes(b"")
    (root / "model.bin").write_bytes(b"")
    settings = make_settings()
    checked = check_model_uri(f"{root.as_uri()}/model/", settings)
    assert (checked.path, checked.is_gguf) == (root.resolve() / "model", False)
    assert check_model_uri(f"{root.as_uri()}/later", settings).path == root.resolve() / "later"
    assert check_model_uri(f"{root.as_uri()}/a.GGUF", settings).is_gguf
    for uri, says in (
        (f"{root.as_uri()}/model.bin", "names a file"),
        ("file:///etc", "outside the directories that may be read"),
        ("file:///etc/passwd", "outside the directories that may be read"),
        ("https://huggingface.co/org/model", "has scheme 'https': use file:///directory"),
        ("org/model", "has no scheme: write it as file:///directory, s3://bucket/prefix or hf://org/name@commit$"),
    ):
        with pytest.raises(UriRefused, match=says):
            check_model_uri(uri, settings)


def test_a_link_out_of_the_roots_is_refused(root: Path, tmp_path: Path, make_settings: SettingsFactory) -> None:
    (tmp_path / "outside").mkdir()
    (root / "model").symlink_to(tmp_path / "outside")
    with pytest.raises(UriRefused, match="outside"):
        check_model_uri((root / "model").as_uri(), make_settings())


def test_buckets_are_those_of_datasets(make_settings: SettingsFactory) -> None:
    settings = make_settings(s3_buckets=("models",))
    assert check_model_uri("s3://models/small/", settings).uri == "s3://models/small"
    assert check_model_uri("s3://models/small/a.gguf", settings).is_gguf
    for uri in ("s3://other/small", "s3://models/", "s3://models", "s3://models/a?versionId=1"):
        with pytest.raises(UriRefused, match="bucket"):
            check_model_uri(uri, settings)


def test_the_hub_is_closed_unless_the_deployment_names_models(make_settings: SettingsFactory) -> None:
    uri = f"hf://org/name@{COMMIT}"
    with pytest.raises(UriRefused, match=r"org/name is not among those of the hub that may be read \(none\)"):
        check_model_uri(uri, make_settings())
    for allowed in ("org/name", "org/*"):
        checked = check_model_uri(uri, make_settings(hub_models=("other/*", allowed)))
        assert checked.repository == ("org/name", COMMIT)
    for allowed in ("org/nam", "org/name2", "or/*", "ORG/name"):
        with pytest.raises(UriRefused, match="add it to SPICE_HUB_MODELS"):
            check_model_uri(uri, make_settings(hub_models=(allowed,)))


@pytest.mark.parametrize(
    "rest",
    [
        "org/name",
        "org/name@main",
        f"org/name@{COMMIT[:12]}",
        f"org/name@{COMMIT.upper()}",
        f"name@{COMMIT}",
        f"org/name@{COMMIT}/model.gguf",
        f"org/../name@{COMMIT}",
        f"../name@{COMMIT}",
        f"org/name%2f..@{COMMIT}",
        f"user:secret@org/name@{COMMIT}",
        f"datasets/org/name@{COMMIT}",
    ],
)
def test_a_hub_model_is_pinned_to_a_whole_commit(make_settings: SettingsFactory, rest: str) -> None:
    with pytest.raises(UriRefused, match="all 40 hex digits of the commit"):
        check_model_uri(f"hf://{rest}", make_settings(hub_models=("org/*",)))


@pytest.mark.parametrize("value", ["org", "*", "*/*", "org/na*", "https://huggingface.co/org/name"])
def test_the_allow_list_names_models_or_organisations(make_settings: SettingsFactory, value: str) -> None:
    with pytest.raises(ValidationError, match="must be org/name, or org/"):
        make_settings(hub_models=(value,))
