"""The small real model appears complete or not at all, and is unpacked in the order that transformers expects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from benchmarks import smollm2

if TYPE_CHECKING:
    from pathlib import Path


def unpack(_source: Path, target: Path) -> None:
    (target / "config.json").write_text("{}")


@pytest.fixture(autouse=True)
def _no_wheel_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(smollm2, "_gguf_directory", lambda: tmp_path)
    monkeypatch.setattr(smollm2, "_convert", unpack)


def test_the_second_call_unpacks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = smollm2.smollm2_directory(tmp_path / "models")
    assert (first / "config.json").read_text() == "{}"
    monkeypatch.setattr(smollm2, "_convert", lambda *_: pytest.fail("unpacked again"))
    assert smollm2.smollm2_directory(tmp_path / "models") == first


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_source: Path, target: Path) -> None:
        (target / "model.safetensors").write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(smollm2, "_convert", fail)
    with pytest.raises(OSError, match="disk full"):
        smollm2.smollm2_directory(tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_whoever_is_second_takes_the_firsts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tmp_path / "models"

    def overtaken(source: Path, target: Path) -> None:
        unpack(source, target)
        (models / smollm2.NAME).mkdir()
        (models / smollm2.NAME / "config.json").write_text("first")

    monkeypatch.setattr(smollm2, "_convert", overtaken)
    assert (smollm2.smollm2_directory(models) / "config.json").read_text() == "first"
    assert len(list(models.iterdir())) == 1


def test_rows_of_a_head_are_ordered_as_transformers_rotates_them() -> None:
    paired = torch.tensor([[0.0], [10.0], [1.0], [11.0], [20.0], [30.0], [21.0], [31.0]])
    assert smollm2._halves(paired, heads=2).flatten().tolist() == [0, 1, 10, 11, 20, 21, 30, 31]


def test_names_are_those_of_a_llama() -> None:
    assert smollm2._llama_name("blk.12.attn_output.weight") == "model.layers.12.self_attn.o_proj.weight"
    assert smollm2._llama_name("token_embd.weight") == "model.embed_tokens.weight"
