"""Models that somebody made to do harm: each is refused with a message that says what and why, and none is believed.

What is planted leaves a mark when it runs; no test finds one.
"""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from workers.models.errors import ModelError
from workers.models.files import model_files
from workers.models.limits import ModelLimits
from workers.models.proxy import load_model
from workers.models.safetensors_header import check_header
from workers.models.tokenizer import TokenizerCache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CPU = torch.device("cpu")
LIMITS = ModelLimits()
WEIGHTS = "model.safetensors"


@pytest.fixture
def model(saved_model: Path, tmp_path: Path) -> Path:
    """A copy of a good model, to be spoilt."""
    return shutil.copytree(saved_model, tmp_path / "model")


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What planted code would leave."""
    return tmp_path / "mark"


def refused(path: Path, says: str, limits: ModelLimits = LIMITS) -> None:
    """Both who loads the model and who needs its tokenizer alone refuse it, within a second or so."""
    began = time.monotonic()
    for load in (
        lambda: load_model(path, dtype="float32", device=CPU, limits=limits),
        lambda: TokenizerCache(limits).get(path),
    ):
        with pytest.raises(ModelError, match=says):
            load()
    assert time.monotonic() - began < 5


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


class Planted:
    """Unpickling this runs code."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return open, (self.mark, "w")


class TestCode:
    @pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pkl"])
    def test_pickled_weights_alone_are_no_model(self, model: Path, mark: Path, name: str) -> None:
        (model / WEIGHTS).unlink()
        (model / name).write_bytes(pickle.dumps(Planted(mark)))
        refused(model, "has no model.safetensors: other weight files can run code when opened; save the model again")
        assert not mark.exists()

    def test_pickled_weights_beside_safe_ones_are_not_opened(self, model: Path, mark: Path) -> None:
        (model / "pytorch_model.bin").write_bytes(pickle.dumps(Planted(mark)))
        load_model(model, dtype="float32", device=CPU)
        assert not mark.exists()

    def test_a_pickle_that_is_called_safetensors_is_not_opened(self, model: Path, mark: Path) -> None:
        (model / WEIGHTS).write_bytes(pickle.dumps(Planted(mark)))
        refused(model, "model.safetensors is not what its header says")
        assert not mark.exists()

    @pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
    @pytest.mark.parametrize("depth", [0, 1])
    def test_code_that_comes_with_a_model_never_runs(self, model: Path, mark: Path, name: str, depth: int) -> None:
        code = f"open({str(mark)!r}, 'w').close()\nclass Evil: ...\n"
        (model / "evil.py").write_text(code)
        auto_map = {"auto_map": dict.fromkeys(("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer"), "evil.Evil")}
        change(model / name, model_type="evil", **({"text_config": auto_map} if depth else auto_map))
        refused(model, f"{name} asks to run code that comes with the model .auto_map., which is never done")
        assert not mark.exists()

    def test_python_files_beside_the_weights_are_out_of_reach(self, model: Path, mark: Path) -> None:
        for name in ("modeling_llama.py", "__init__.py", "tokenization_llama.py", "sitecustomize.py"):
            (model / name).write_text(f"open({str(mark)!r}, 'w').close()")
        load_model(model, dtype="float32", device=CPU)
        assert not mark.exists()

    @pytest.mark.parametrize("name", ["somebody/kernel", "flash_attention_2", "eager", "flex_attention"])
    def test_a_configuration_does_not_choose_the_attention_that_runs(self, model: Path, name: str) -> None:
        """A kernel of the hub is code, and some of those that come with transformers do not sum in a fixed order."""
        implementations = {"attn_implementation": name, "_attn_implementation": name, "experts_implementation": name}
        change(model / "config.json", **implementations)
        loaded = load_model(model, dtype="float32", device=CPU).model
        assert loaded.config._attn_implementation == "sdpa"
        assert TokenizerCache(LIMITS).get(model).longest == loaded.config.max_position_embeddings

    def test_an_adapters_configuration_leads_to_no_other_model(self, model: Path) -> None:
        (model / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc", "peft_type": "LORA"}')
        load_model(model, dtype="float32", device=CPU)


class TestWaysOut:
    def test_links(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "secret.json").write_text("{}")
        (model / "chat_template.jinja").unlink(missing_ok=True)
        (model / "chat_template.jinja").symlink_to(tmp_path / "secret.json")
        refused(model, "chat_template.jinja is a link out of the directory")

    def test_links_among_the_further_templates(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").mkdir()
        (tmp_path / "secret" / "default.jinja").write_text("secret")
        (model / "additional_chat_templates").symlink_to(tmp_path / "secret")
        refused(model, "additional_chat_templates is a link out of the directory")
        (model / "additional_chat_templates").unlink()
        (model / "additional_chat_templates").mkdir()
        (model / "additional_chat_templates" / "default.jinja").symlink_to(tmp_path / "secret" / "default.jinja")
        refused(model, "additional_chat_templates/default.jinja is a link out of the directory")

    def test_templates_in_other_directories_are_not_read(self, model: Path) -> None:
        (model / "more").mkdir()
        (model / "more" / "default.jinja").write_text("secret")
        assert "secret" not in TokenizerCache().get(model).tokenizer.get_chat_template()

    @pytest.mark.parametrize("name", ["../other.safetensors", "/etc/other.safetensors", "a/b.safetensors", 7, "x.bin"])
    def test_an_index_names_files_beside_it(self, model: Path, name: object) -> None:
        (model / WEIGHTS).rename(model.parent / "other.safetensors")
        (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
        refused(model, "it must name .safetensors files beside it")

    def test_a_configuration_names_no_weights(self, model: Path) -> None:
        (model.parent / "other.safetensors").write_bytes((model / WEIGHTS).read_bytes())
        change(model / "config.json", transformers_weights="../other.safetensors")
        with pytest.raises(ModelError, match="can't be loaded"):
            load_model(model, dtype="float32", device=CPU)

    def test_files_that_a_tokenizers_configuration_names_are_not_opened(self, model: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("a b\n")
        change(
            model / "tokenizer_config.json",
            vocab_file=str(tmp_path / "secret"),
            merges_file=str(tmp_path / "secret"),
            tokenizer_file=str(tmp_path / "secret"),
            init_inputs=[str(tmp_path / "secret")],
        )
        tokenizer = TokenizerCache().get(model).tokenizer
        assert str(tmp_path) not in str(tokenizer.init_kwargs)


def safetensors(header: object, body: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + body


def tensor(start: int, end: int, shape: object = (1,), dtype: object = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


LIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "header too small"),
    "length beyond the file": (safetensors({}, length=2**63), "header too large"),
    "longer by a little": (safetensors({}, length=3), "is not what its header says"),
    "no JSON": (safetensors(b"{"), "invalid JSON"),
    "no object": (safetensors([]), "invalid JSON"),
    "nested": (safetensors(b"[" * 100_000 + b"]" * 100_000), "invalid JSON"),
    "a name twice": (
        safetensors(b'{"a": %(a)s, "a": %(a)s}' % {b"a": json.dumps(tensor(0, 4)).encode()}, bytes(4)),
        "a key occurs twice",
    ),
    "a field twice": (
        safetensors(b'{"a": {"dtype": "F32", "shape": [1], "shape": [2], "data_offsets": [0, 4]}}', bytes(4)),
        "duplicate field `shape`",
    ),
    "offset beyond the file": (safetensors({"a": tensor(0, 4)}, b""), "not fully covered"),
    "far beyond the file": (safetensors({"a": tensor(0, 2**62, [2**60])}), "overflow"),
    "bytes after the last": (safetensors({"a": tensor(0, 4)}, bytes(8)), "not fully covered"),
    "overlap": (safetensors({"a": tensor(0, 4), "b": tensor(2, 6)}, bytes(6)), "invalid offset for tensor `b`"),
    "the same bytes": (safetensors({"a": tensor(0, 4), "b": tensor(0, 4)}, bytes(4)), "invalid offset for tensor"),
    "a gap": (safetensors({"a": tensor(0, 4), "b": tensor(6, 10)}, bytes(10)), "invalid offset for tensor `b`"),
    "backwards": (safetensors({"a": tensor(4, 0)}, bytes(4)), "invalid offset for tensor `a`"),
    "negative": (safetensors({"a": tensor(-4, 0)}, bytes(4)), "invalid value: integer `-4`"),
    "shape too large": (safetensors({"a": tensor(0, 4, [2])}, bytes(4)), "invalid shape, data type, or offset"),
    "shape overflows": (safetensors({"a": tensor(0, 0, [2**32, 2**32])}), "overflow"),
    "dtype too wide": (safetensors({"a": tensor(0, 4, [1], "F64")}, bytes(4)), "invalid shape, data type, or offset"),
    "unknown dtype": (safetensors({"a": tensor(0, 4, [1], "PICKLE")}, bytes(4)), "unknown variant `PICKLE`"),
    "packed dtype": (safetensors({"a": tensor(0, 4, [8], "F4")}, bytes(4)), "has dtype 'F4': use weights of one of"),
    "dtype no text": (safetensors({"a": tensor(0, 4, [1], ["F32"])}, bytes(4)), "invalid type: sequence"),
    "shape of text": (safetensors({"a": tensor(0, 4, ["1"])}, bytes(4)), "invalid type: string"),
    "shape of truth": (safetensors({"a": tensor(0, 4, [True])}, bytes(4)), "invalid type: boolean"),
    "many dimensions": (safetensors({"a": tensor(0, 4, [1] * 100)}, bytes(4)), "has 100 dimensions, the limit is 16"),
    "no entry": (safetensors({"a": 7}), "invalid type: integer"),
}


class TestSafetensors:
    @pytest.mark.parametrize("lie", LIES)
    def test_a_header_that_lies_is_refused(self, model: Path, lie: str) -> None:
        content, says = LIES[lie]
        (model / WEIGHTS).write_bytes(content)
        with pytest.raises(ModelError, match=says) as caught:
            model_files(model, LIMITS)
        assert "model.safetensors" in str(caught.value)

    def test_a_header_that_is_a_bomb_is_refused_unread(self, model: Path) -> None:
        (model / WEIGHTS).write_bytes(safetensors(b'{"a":' + b" " * 50_000_000 + b"1}"))
        tracemalloc.start()
        try:
            with pytest.raises(ModelError, match=r"header .* has 50,000,007 bytes, the limit is 1,000,000"):
                model_files(model, ModelLimits(json_max_bytes=1_000_000))
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()

    def test_what_save_file_writes_is_right(self, tmp_path: Path) -> None:
        tensors = {"a": torch.ones(2, 3), "b": torch.ones((), dtype=torch.bfloat16), "none": torch.ones(0, 4)}
        save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt"})
        found = check_header(tmp_path / "a.safetensors", 10_000)
        assert {one.name: (one.shape, one.elements) for one in found} == {
            name: (tuple(value.shape), value.numel()) for name, value in tensors.items()
        }

    def test_weights_of_other_shapes_are_refused(self, model: Path) -> None:
        weights = load_file(model / WEIGHTS)
        weights["model.norm.weight"] = torch.ones(3)
        save_file(weights, model / WEIGHTS)
        with pytest.raises(ModelError, match=r"can't be loaded|lacks weights"):
            load_model(model, dtype="float32", device=CPU)


class TestSizes:
    @pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "chat_template.jinja", "vocab.txt"])
    def test_a_file_of_absurd_size_is_not_read(self, model: Path, name: str) -> None:
        with (model / name).open("wb") as file:
            file.truncate(10 << 30)  # sparse: it takes no room
        refused(model, f"{name} has 10,737,418,240 bytes, the limit is 67,108,864: raise SPICE_MODEL_JSON_MAX_BYTES")

    def test_weights_of_absurd_size_are_not_read(self, model: Path) -> None:
        with (model / WEIGHTS).open("r+b") as file:
            file.truncate(1 << 40)
        refused(model, "the weights of model have .* the limit is 68,719,476,736: .* SPICE_MODEL_MAX_BYTES")

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
    def test_json_that_is_a_bomb_is_refused(self, model: Path, name: str) -> None:
        for content in (b"[" * 200_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"\xff\xfe", b"9" * 10_000):
            (model / name).write_bytes(content)
            refused(model, f"{name} is not JSON")

    @pytest.mark.parametrize(
        ("values", "says"),
        [
            ({"num_hidden_layers": 10**9}, "asks for num_hidden_layers 1,000,000,000, but its weight files hold 20"),
            ({"vocab_size": 10**12}, "numbers, but its weight files hold"),
            ({"intermediate_size": 10**10}, "numbers, but its weight files hold"),
            ({"hidden_size": 2**40}, "numbers, but its weight files hold"),
        ],
    )
    def test_a_configuration_that_asks_for_the_sky(self, model: Path, values: dict[str, int], says: str) -> None:
        change(model / "config.json", **values)
        began = time.monotonic()
        with pytest.raises(ModelError, match=says):
            load_model(model, dtype="float32", device=CPU)
        assert time.monotonic() - began < 5

    def test_a_directory_of_very_many_files(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("workers.models.files.MOST_FILES", 3)
        refused(model, "the limit is 3: give the directory of one model")

    def test_what_a_model_takes_in_memory_is_limited(self, model: Path) -> None:
        size = (model / WEIGHTS).stat().st_size
        weights = {name: value.bfloat16() for name, value in load_file(model / WEIGHTS).items()}
        save_file(weights, model / WEIGHTS, metadata={"format": "pt"})
        with pytest.raises(ModelError, match="bytes in float32, the limit is"):
            load_model(model, dtype="float32", device=CPU, limits=ModelLimits(max_bytes=size // 2 + 5000))


def test_the_good_model_loads(model: Path) -> None:
    """So that every refusal above is for what was spoilt."""
    loads: list[Callable[[], object]] = [
        lambda: load_model(model, dtype="float32", device=CPU),
        lambda: TokenizerCache().get(model),
    ]
    assert all(load() for load in loads)
