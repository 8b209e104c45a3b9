"""Models from S3 and from a hub: what is needed, complete or not at all, once, and no more than the limits allow.

The S3 server is moto's, on loopback; the hub is tests/unit/models/hub_server.py, since no real one can be reached here.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest
import torch

from app.core.uris.models import check_model_uri
from tests.integration.models.hub_server import HubServer, hub_server
from tests.integration.s3_server import Failing, S3Server
from workers.data.cache_limits import shrink_cache
from workers.data.holds import Holds
from workers.data.leftovers import remove_leftovers
from workers.data.stopping import Stopped
from workers.models.errors import ModelError
from workers.models.fetch import CacheFailed, fetch_model
from workers.models.proxy import load_model
from workers.models.tokenizer import TokenizerCache

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from app.core.settings import Settings
    from tests.unit.models.conftest import SettingsFactory

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEEDED = {"chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
RAG = "additional_chat_templates/rag.jinja"
IN_THE_WAY = {"pytorch_model.bin": b"\x80\x04.", "modeling.py": b"raise SystemExit", "README.md": b"#", "a.gguf": b"G"}


def upload(s3: S3Server, directory: Path, prefix: str) -> None:
    for file in directory.iterdir():
        s3.client.put_object(Bucket="models", Key=f"{prefix}/{file.name}", Body=file.read_bytes())


def names_of(path: Path) -> set[str]:
    return {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}


@pytest.fixture
def prefix(s3: S3Server, saved_model: Path, request: pytest.FixtureRequest) -> str:
    """A prefix of this test's own, with the model and things that nobody needs."""
    prefix = request.node.name.replace("[", "-").replace("]", "")
    s3.reset()
    upload(s3, saved_model, prefix)
    for name, content in IN_THE_WAY.items():
        s3.client.put_object(Bucket="models", Key=f"{prefix}/{name}", Body=content)
    s3.client.put_object(Bucket="models", Key=f"{prefix}/original/config.json", Body=b"{")
    return prefix


@pytest.fixture
def settings(make_settings: SettingsFactory, s3: S3Server) -> Settings:
    return make_settings(s3_endpoint_url=s3.url, s3_buckets=("models",))


def fetched(uri: str, settings: Settings) -> Path:
    return fetch_model(check_model_uri(uri, settings), settings)


def copies(settings: Settings) -> list[str]:
    return [path.name for path in (settings.cache_path / "models").glob("*")]


class TestS3:
    def test_only_what_is_needed_is_fetched_and_loads(self, prefix: str, settings: Settings, saved_model: Path) -> None:
        path = fetched(f"s3://models/{prefix}", settings)
        assert {file.name for file in path.iterdir()} == NEEDED
        there = load_model(path, dtype="float32", device=torch.device("cpu"))
        here = load_model(saved_model, dtype="float32", device=torch.device("cpu"))
        assert there.revision == here.revision

    def test_further_chat_templates_come_with_it(self, s3: S3Server, prefix: str, settings: Settings) -> None:
        for name in (RAG, "additional_chat_templates/notes.txt", "additional_chat_templates/deep/x.jinja"):
            s3.client.put_object(Bucket="models", Key=f"{prefix}/{name}", Body=b"rag")
        path = fetched(f"s3://models/{prefix}", settings)
        assert names_of(path) == NEEDED | {RAG}
        assert set(TokenizerCache().get(path).tokenizer.chat_template) == {"default", "rag"}

    def test_a_copy_is_used_again_until_the_source_changes(self, s3: S3Server, prefix: str, settings: Settings) -> None:
        first = fetched(f"s3://models/{prefix}/", settings)
        s3.reset()
        assert fetched(f"s3://models/{prefix}", settings) == first
        assert not [call for call in s3.calls if call.path.endswith("safetensors")]
        changed = (first / "config.json").read_bytes() + b"\n"
        s3.client.put_object(Bucket="models", Key=f"{prefix}/config.json", Body=changed)
        assert fetched(f"s3://models/{prefix}", settings) != first

    def test_shards_of_weights_are_those_of_the_index(
        self, s3: S3Server, prefix: str, settings: Settings, saved_model: Path
    ) -> None:
        shard = "model-00001-of-00001.safetensors"
        index = json.dumps({"weight_map": {"x": shard}}).encode()
        weights = (saved_model / "model.safetensors").read_bytes()
        s3.client.delete_object(Bucket="models", Key=f"{prefix}/model.safetensors")
        for name, body in ((shard, weights), ("other.safetensors", weights), ("model.safetensors.index.json", index)):
            s3.client.put_object(Bucket="models", Key=f"{prefix}/{name}", Body=body)
        names = {file.name for file in fetched(f"s3://models/{prefix}", settings).iterdir()}
        assert names == NEEDED - {"model.safetensors"} | {shard, "model.safetensors.index.json"}

    def test_what_is_too_large_is_not_fetched(self, s3: S3Server, prefix: str, make_settings: SettingsFactory) -> None:
        allowed = {"s3_endpoint_url": s3.url, "s3_buckets": ("models",)}
        for limit, says in (
            ({"model_max_bytes": 1000}, "weights .* have .* the limit is 1,000.*SPICE_MODEL_MAX_BYTES"),
            ({"model_json_max_bytes": 1000}, "tokenizer.json has .* the limit is 1,000.*SPICE_MODEL_JSON_MAX_BYTES"),
            ({"fetch_timeout_s": 1e-9}, "took more than 1e-09 s.*SPICE_FETCH_TIMEOUT_S"),
        ):
            settings = make_settings(**allowed, **limit)
            with pytest.raises(ModelError, match=says):
                fetched(f"s3://models/{prefix}", settings)
            assert copies(settings) == []

    def test_faults_that_pass_do_no_harm(self, s3: S3Server, prefix: str, settings: Settings) -> None:
        s3.refuse = Failing(3, lambda call: call.path.endswith("safetensors"))
        assert (fetched(f"s3://models/{prefix}", settings) / "model.safetensors").is_file()

    def test_what_is_not_there_or_closed_is_said(self, s3: S3Server, prefix: str, settings: Settings) -> None:
        with pytest.raises(ModelError, match="there is nothing at s3://models/none"):
            fetched("s3://models/none", settings)
        s3.refuse = lambda _: (403, "AccessDenied")
        with pytest.raises(ModelError, match="may not be read: give the worker credentials"):
            fetched(f"s3://models/{prefix}", settings)

    def test_pickles_alone_are_no_model(self, s3: S3Server, prefix: str, settings: Settings) -> None:
        s3.client.delete_object(Bucket="models", Key=f"{prefix}/model.safetensors")
        with pytest.raises(ModelError, match=r"has no model\.safetensors: other weight files can run code"):
            fetched(f"s3://models/{prefix}", settings)
        assert copies(settings) == []

    def test_it_can_be_stopped_and_leaves_nothing(self, prefix: str, settings: Settings) -> None:
        with pytest.raises(Stopped):
            fetch_model(check_model_uri(f"s3://models/{prefix}", settings), settings, lambda: True)
        assert copies(settings) == []

    def test_a_cache_that_cannot_be_written(self, prefix: str, settings: Settings) -> None:
        settings.cache_path.mkdir()
        (settings.cache_path / "models").write_text("in the way")
        with pytest.raises(CacheFailed, match="SPICE_CACHE_DIR"):
            fetched(f"s3://models/{prefix}", settings)


def test_copies_are_kept_while_held_and_go_by_age(prefix: str, settings: Settings) -> None:
    old = settings.model_copy(update={"cache_max_age_s": 60.0})
    path = fetched(f"s3://models/{prefix}", settings)
    then = time.time() - 1000
    for one in (*path.iterdir(), path):
        os.utime(one, (then, then))
    holds = Holds()
    assert holds.take("model", path)
    os.utime(path, (then, then))
    assert shrink_cache(old, (), ()) == []
    holds.drop("model")
    assert shrink_cache(old, (), ()) == [path]
    assert fetched(f"s3://models/{prefix}", settings) == path


def test_what_a_killed_worker_leaves_is_cleared(settings: Settings, saved_model: Path) -> None:
    half = settings.cache_path / "models" / ".123-abc"
    half.parent.mkdir(parents=True)
    shutil.copytree(saved_model, half)
    for one in (*half.iterdir(), half):
        os.utime(one, (1e9, 1e9))
    assert remove_leftovers(settings) == 1
    assert not half.exists()


@pytest.fixture
def hub(saved_model: Path) -> Iterator[HubServer]:
    with hub_server() as hub:
        files = {file.name: file.read_bytes() for file in saved_model.iterdir()}
        hub.models["org/tiny", COMMIT] = files | IN_THE_WAY
        yield hub


class TestHub:
    @pytest.fixture
    def settings(self, make_settings: SettingsFactory, hub: HubServer) -> Settings:
        return make_settings(hub_models=("org/*",), hub_url=f"{hub.url}/")

    def test_only_what_is_needed_is_fetched_and_loads(
        self, settings: Settings, hub: HubServer, saved_model: Path
    ) -> None:
        path = fetched(f"hf://org/tiny@{COMMIT}", settings)
        assert {file.name for file in path.iterdir()} == NEEDED
        there = load_model(path, dtype="float32", device=torch.device("cpu"))
        assert there.revision == load_model(saved_model, dtype="float32", device=torch.device("cpu")).revision
        assert not [call for call in hub.calls if call.endswith((".bin", ".py", ".gguf"))]

    def test_further_chat_templates_come_with_it(self, settings: Settings, hub: HubServer) -> None:
        hub.models["org/tiny", COMMIT] |= {
            RAG: b"rag",
            "additional_chat_templates/deep/x.jinja": b"x",
            "deep/y.json": b"",
        }
        path = fetched(f"hf://org/tiny@{COMMIT}", settings)
        assert names_of(path) == NEEDED | {RAG}
        assert set(TokenizerCache().get(path).tokenizer.chat_template) == {"default", "rag"}

    def test_a_commit_that_is_here_is_not_asked_for_again(self, settings: Settings, hub: HubServer) -> None:
        path = fetched(f"hf://org/tiny@{COMMIT}", settings)
        hub.calls.clear()
        assert fetched(f"hf://org/tiny@{COMMIT}", settings) == path
        assert hub.calls == []

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_bytes_that_are_not_those_of_the_commit_are_refused(
        self, settings: Settings, hub: HubServer, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("workers.models.fetch.ATTEMPTS", 2)
        hub.damage = {name}
        with pytest.raises(ModelError, match=f"{name} arrived damaged"):
            fetched(f"hf://org/tiny@{COMMIT}", settings)
        assert copies(settings) == []

    def test_what_is_not_there_or_closed_is_said(self, settings: Settings, hub: HubServer) -> None:
        with pytest.raises(ModelError, match="there is nothing at hf://org/none"):
            fetched(f"hf://org/none@{COMMIT}", settings)
        hub.refuse = 401
        with pytest.raises(ModelError, match=r"may not be read: .*HF_TOKEN"):
            fetched(f"hf://org/tiny@{COMMIT}", settings)

    def test_the_limits_hold(self, settings: Settings) -> None:
        small = settings.model_copy(update={"model_max_bytes": 1000})
        with pytest.raises(ModelError, match="the limit is 1,000"):
            fetched(f"hf://org/tiny@{COMMIT}", small)
