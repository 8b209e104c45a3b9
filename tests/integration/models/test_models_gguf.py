"""GGUF files: unpacked once in a process of their own, within limits, and never believed before they are checked."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from gguf import GGUFReader, dequantize

from app.core.uris.models import check_model_uri
from tests.integration.deadlines import soon
from tests.integration.models.tiny_gguf import LAYERS, WIDTH, write_tiny_gguf
from workers.data.stopping import Stopped
from workers.models import gguf as gguf_module
from workers.models.errors import ModelError
from workers.models.gguf_header import check_gguf
from workers.models.limits import ModelLimits
from workers.models.local import local_model
from workers.models.proxy import load_model

if TYPE_CHECKING:
    from pathlib import Path

    from app.core.settings import Settings
    from tests.unit.models.conftest import SettingsFactory

LIMITS = ModelLimits()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantised model; not to be changed."""
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def settings(make_settings: SettingsFactory, file: Path) -> Settings:
    return make_settings(allowed_roots=(str(file.parent),))


def unpacked(file: Path, settings: Settings, dtype: str = "float32") -> Path:
    return local_model(check_model_uri(file.as_uri(), settings), dtype, settings)


def test_it_loads_with_the_numbers_that_the_file_stands_for_in_the_jobs_dtype(
    file: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file.parent / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.T", null]}}')  # unread
    path = unpacked(file, settings, "bfloat16")
    assert [one.name for one in (settings.cache_path / "models").iterdir()] == [path.name]
    model = load_model(path, dtype="bfloat16", device=torch.device("cpu"))
    assert model.model.dtype == torch.bfloat16
    assert model.model.config.num_hidden_layers == LAYERS
    embedding = next(tensor for tensor in GGUFReader(file).tensors if tensor.name == "token_embd.weight")
    expected = torch.from_numpy(dequantize(embedding.data, embedding.tensor_type).copy())
    assert torch.equal(model.model.get_input_embeddings().weight, expected.bfloat16())
    assert expected.shape[1] == WIDTH
    assert model.tokenizer.tokenize("the") == ["the"]
    assert "<|im_start|>user" in model.tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    monkeypatch.setattr(gguf_module, "_run", lambda *_: pytest.fail("unpacked again"))
    assert unpacked(file, settings, "bfloat16") == path


def test_what_transformers_cannot_read_is_a_clear_error(tmp_path: Path, make_settings: SettingsFactory) -> None:
    broken = write_tiny_gguf(tmp_path / "broken.gguf")
    broken.write_bytes(broken.read_bytes().replace(b"llama", b"bongo"))
    settings = make_settings()
    with pytest.raises(ModelError, match=r"broken.gguf can't be unpacked .*it must be a causal language model"):
        unpacked(broken, settings)
    assert list((settings.cache_path / "models").iterdir()) == []


def test_the_time_is_limited_and_it_can_be_stopped(file: Path, settings: Settings) -> None:
    with pytest.raises(ModelError, match=r"took more than 0.2 s.*SPICE_MODEL_UNPACK_TIMEOUT_S"):
        unpacked(file, settings.model_copy(update={"model_unpack_timeout_s": 0.2}))
    began = time.monotonic()
    with pytest.raises(Stopped):
        local_model(check_model_uri(file.as_uri(), settings), "float32", settings, lambda: True)
    assert time.monotonic() - began < soon(5)
    assert list((settings.cache_path / "models").iterdir()) == []


def test_the_memory_is_limited(file: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_module, "BASE_BYTES", 64 << 20)
    with pytest.raises(ModelError, match="bytes of memory"):
        unpacked(file, settings)


@pytest.mark.parametrize("times", [1, 2])
def test_a_process_that_a_signal_ends_is_started_again_once(
    file: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    run, ended = gguf_module._run, list[int]()

    def killed(*arguments: Any) -> tuple[int, str]:
        if len(ended) < times:
            ended.append(1)
            return -9, ""
        return run(*arguments)

    monkeypatch.setattr(gguf_module, "_run", killed)
    if times == 1:
        assert unpacked(file, settings).is_dir()
    else:
        with pytest.raises(ModelError, match=r"ended twice by signal 9: .* look for memory kills"):
            unpacked(file, settings)
        assert not list((settings.cache_path / "models").iterdir())


def test_the_process_sees_no_credentials(file: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("SPICE_DATABASE_URL", "postgresql://u:secret@h/d")
    seen = {}

    class Recorded(Exception):
        pass

    def popen(command: list[str], env: dict[str, str], **_: object) -> None:
        seen.update(env)
        raise Recorded(command)

    monkeypatch.setattr(gguf_module.subprocess, "Popen", popen)
    with pytest.raises(Recorded):
        unpacked(file, settings)
    assert "PATH" in seen
    assert not [name for name, value in seen.items() if "secret" in value]


def header(*, tensors: int = 0, values: int = 0, body: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, values) + body


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def tensor(*dims: int, kind: int = 0, offset: int = 0) -> bytes:
    return text(b"t") + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "leads to byte 4, the file has 0"),
        (b"\x80\x04pickle", "does not begin as a GGUF file"),
        (header(version=1), "GGUF of version 1"),
        (header(tensors=2**60), "leads to byte"),
        (header(values=2**60), "leads to byte"),
        (header(values=1, body=struct.pack("<Q", 2**63)), "leads to byte"),
        (header(values=1, body=text(b"a") + struct.pack("<IIQ", 9, 0, 2**60)), "leads to byte"),
        (header(values=1, body=text(b"a") + struct.pack("<IIQ", 9, 8, 2**60)), "leads to byte"),
        (header(values=1, body=text(b"a") + struct.pack("<IIQ", 9, 9, 1)), "value of the unknown type 9"),
        (header(values=1, body=text(b"a") + struct.pack("<I", 77)), "value of the unknown type 77"),
        (header(tensors=1, body=text(b"t") + struct.pack("<I", 2**31)), "dimensions"),
        (header(tensors=1, body=tensor(10, kind=99)), "'t' is of the unknown type 99"),
        (header(tensors=1, body=tensor(2**40)), "'t' has 1,099,511,627,776 numbers at byte 0"),
        (header(tensors=1, body=tensor(1, offset=2**50)), "numbers at byte"),
        (header(tensors=1, body=tensor(2**62, 2**62, 0)) + bytes(8), None),
        (header(tensors=1, body=tensor(33, kind=2)) + bytes(100), "has 33 numbers"),
    ],
)
def test_a_header_that_lies_is_refused_at_once(tmp_path: Path, content: bytes, says: str | None) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(content)
    if says is None:  # nothing, of an absurd shape
        assert check_gguf(path, LIMITS) == 0
        return
    began = time.monotonic()
    with pytest.raises(ModelError, match=says):
        check_gguf(path, LIMITS)
    assert time.monotonic() - began < soon(1)


def test_the_limits_of_header_and_size(file: Path) -> None:
    with pytest.raises(ModelError, match=r"header of tiny.gguf is longer than 100 bytes"):
        check_gguf(file, ModelLimits(json_max_bytes=100))
    with pytest.raises(ModelError, match=r"bytes unpacked, the limit is 1,000.*SPICE_MODEL_MAX_BYTES"):
        check_gguf(file, ModelLimits(max_bytes=1000))
    with pytest.raises(ModelError, match="is not a file"):
        check_gguf(file.parent, LIMITS)
