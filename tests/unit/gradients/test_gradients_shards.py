"""Shards survive kills, damage and two writers, and are addressed by what they were made from."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from app.core.storage.local import LocalArtifacts
from workers.gradients.config import GradientConfig
from workers.gradients.engine import Sketches
from workers.gradients.shards import ShardDamaged, ShardStore, sketch_key

if TYPE_CHECKING:
    from pathlib import Path

SAMPLES, DIM, ROWS = 10, 6, 4
KEY = "ab" * 32


def store(root: Path, *, shard_rows: int = ROWS) -> ShardStore:
    return ShardStore(LocalArtifacts(root), KEY, samples=SAMPLES, sketch_dim=DIM, shard_rows=shard_rows)


def sketches(rows: range, offset: float = 0.0) -> Sketches:
    values = np.arange(rows.start * DIM, rows.stop * DIM, dtype=np.float32).reshape(-1, DIM) + offset
    losses = np.arange(rows.start, rows.stop, dtype=np.float32)
    return Sketches(values=values, losses=losses, finite=losses != 3, token_losses=losses / 2, unprompted=losses / 4)


def usable() -> np.ndarray:
    """All sketches but that of row 3, which is not finite."""
    return np.delete(sketches(range(SAMPLES)).values, 3, axis=0)


def filled(root: Path) -> ShardStore:
    shards = store(root)
    for shard in shards.missing():
        shards.write(shard, sketches(shards.rows(shard)))
    return shards


def file_of(root: Path, shard: int) -> Path:
    return root / "sketches" / KEY / f"shard-{shard:05d}.safetensors"


def test_a_job_goes_on_at_the_first_missing_shard(tmp_path: Path) -> None:
    shards = store(tmp_path)
    assert shards.missing() == [0, 1, 2]
    assert [shards.rows(shard) for shard in range(3)] == [range(4), range(4, 8), range(8, 10)]
    shards.write(0, sketches(range(4)))
    assert store(tmp_path).missing() == [1, 2]


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    expected = sketches(range(SAMPLES))
    stored = filled(tmp_path).load()
    assert np.array_equal(stored.values, expected.values[expected.finite])
    assert np.array_equal(stored.token_losses, expected.token_losses)
    assert np.array_equal(stored.unprompted, expected.unprompted)
    assert np.array_equal(stored.finite, expected.finite)


def test_a_matrix_too_large_for_memory_is_mapped_and_leaves_no_file(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    stored = filled(tmp_path).load(scratch=scratch, in_memory_bytes=0)
    assert isinstance(stored.values, np.memmap)
    assert np.array_equal(stored.values, usable())
    assert list(scratch.iterdir()) == []


def test_a_scratch_disk_without_room_is_an_error_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found out in the middle it is a SIGBUS, and the end of the worker. No disk is full here: the call says so."""
    scratch = tmp_path / "scratch"

    def full_disk(_descriptor: int, _start: int, size: int) -> None:
        assert size == SAMPLES * DIM * 4
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("workers.gradients.shards.os.posix_fallocate", full_disk)
    with pytest.raises(OSError, match=r"no room for the 240 bytes of the sketches \(No space left on device\): free"):
        filled(tmp_path).load(scratch=scratch, in_memory_bytes=0)
    assert list(scratch.iterdir()) == []


def test_tiles_come_one_at_a_time_in_order(tmp_path: Path) -> None:
    tiles = list(filled(tmp_path).tiles())
    assert [rows for rows, _ in tiles] == [range(4), range(4, 8), range(8, 10)]
    assert np.array_equal(tiles[1][1].values, sketches(range(4, 8)).values)


@pytest.mark.parametrize("place", [0, 4, 20, 100, -1])
def test_one_flipped_bit_anywhere_makes_a_shard_missing(tmp_path: Path, place: int) -> None:
    shards = filled(tmp_path)
    content = bytearray(file_of(tmp_path, 1).read_bytes())
    content[place] ^= 1
    file_of(tmp_path, 1).write_bytes(content)
    assert shards.missing() == []  # by its size alone
    if shards.missing(verify=True) == []:  # a bit of the header that means nothing
        assert np.array_equal(shards.load().values, usable())
        return
    assert shards.missing(verify=True) == [1]
    with pytest.raises(ShardDamaged, match="shard 1"):
        shards.load()
    shards.write(1, sketches(range(4, 8)))
    assert shards.missing(verify=True) == []


@pytest.mark.parametrize("length", [0, 5, 100])
def test_a_truncated_shard_is_missing(tmp_path: Path, length: int) -> None:
    shards = filled(tmp_path)
    file_of(tmp_path, 0).write_bytes(file_of(tmp_path, 0).read_bytes()[:length])
    assert shards.missing() == [0]


def test_a_shard_in_anothers_place_is_missing(tmp_path: Path) -> None:
    shards = filled(tmp_path)
    file_of(tmp_path, 1).write_bytes(file_of(tmp_path, 0).read_bytes())
    assert shards.missing(verify=True) == [1]


def test_the_last_of_two_writers_leaves_a_valid_shard(tmp_path: Path) -> None:
    first, second = store(tmp_path), store(tmp_path)
    first.write(0, sketches(range(4)))
    second.write(0, sketches(range(4), offset=1e-3))
    assert first.missing() == [1, 2]
    assert [path.name for path in (tmp_path / "sketches" / KEY).iterdir() if path.name.startswith(".")] == []


def test_who_begins_decides_the_shard_size(tmp_path: Path) -> None:
    filled(tmp_path)
    other = store(tmp_path, shard_rows=7)
    assert other.shard_rows == ROWS
    assert other.missing() == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"samples": 10, "sketch_dim": 6}',
        b'{"samples": 10, "sketch_dim": 6, "shard_rows": 0}',
        b'{"samples": 10, "sketch_dim": 6, "shard_rows": "4"}',
        b'{"samples": 11, "sketch_dim": 6, "shard_rows": 4}',
    ],
)
def test_a_damaged_manifest_is_made_again(tmp_path: Path, content: bytes) -> None:
    """A key stands for one matrix: a manifest of another is damage too, and must not fail every job of the key."""
    filled(tmp_path)
    manifest = tmp_path / "sketches" / KEY / "manifest.json"
    manifest.write_bytes(content)
    assert store(tmp_path).missing() == []
    assert json.loads(manifest.read_bytes()) == {"samples": SAMPLES, "sketch_dim": DIM, "shard_rows": ROWS}


@pytest.mark.parametrize("shard_rows", range(1, SAMPLES + 1))
def test_shards_of_another_size_are_never_taken_for_those_of_this(tmp_path: Path, shard_rows: int) -> None:
    """In shards of 4 the third holds rows 8 and 9; in shards of 2 it holds as many, which are rows 4 and 5."""
    filled(tmp_path)
    (tmp_path / "sketches" / KEY / "manifest.json").write_bytes(b"")
    other = store(tmp_path, shard_rows=shard_rows)
    assert other.shard_rows == shard_rows
    for shard in other.missing(verify=True):
        other.write(shard, sketches(other.rows(shard)))
    assert np.array_equal(other.load().values, usable())


def test_sketches_of_the_wrong_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shard 0"):
        store(tmp_path).write(0, sketches(range(3)))


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = store(tmp_path)

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.core.storage.local.os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        shards.write(0, sketches(range(4)))
    assert [path.name for path in (tmp_path / "sketches" / KEY).iterdir()] == ["manifest.json"]


def test_artifact_names_stay_in_the_store(tmp_path: Path) -> None:
    for name in ("../outside", "/etc/outside", "a/../../outside"):
        with pytest.raises(ValueError, match="leaves the store"):
            LocalArtifacts(tmp_path).write(name, b"")


def key(config: GradientConfig, **changes: str) -> str:
    facts = {"dataset_digest": "d", "model_revision": "m", "dtype": "float32", "template_version": "1"}
    return sketch_key(**{**facts, **changes}, config=config)  # type: ignore[arg-type]


def test_the_key_names_everything_that_a_sketch_depends_on() -> None:
    base = GradientConfig()
    keys = {
        key(base),
        key(base, dataset_digest="e"),
        key(base, model_revision="n"),
        key(base, dtype="bfloat16"),
        key(base, template_version="2"),
        key(replace(base, rank=4)),
        key(replace(base, seed=1)),
        key(replace(base, sketch_dim=64)),
        key(replace(base, sketch="factorised")),
        key(replace(base, target="linear")),
        key(replace(base, layers=("q_proj",))),
        key(replace(base, loss_normalization="mean")),
        key(replace(base, prompt_effect=True)),
        key(replace(base, adapter="a")),
        key(replace(base, adapter="b")),
        key(replace(base, warmup_steps=1)),
        key(replace(base, warmup_steps=2)),
        key(replace(base, warmup_steps=2, warmup_learning_rate=1e-3)),
        key(replace(base, preconditioner="adam")),
        key(replace(base, warmup_steps=2, preconditioner="adam")),
    }
    assert len(keys) == 20


def test_the_key_ignores_what_a_sketch_does_not_depend_on() -> None:
    base = GradientConfig()
    assert key(base) == key(replace(base, token_budget=17)) == key(replace(base, sketch="sparse"))
    linear = replace(base, target="linear")
    assert key(linear) == key(replace(linear, rank=4))
    assert key(base) == key(replace(base, warmup_learning_rate=1e-3))
    given = replace(base, adapter="a")
    assert key(given) == key(replace(given, rank=4))
    assert key(replace(base, layers=("a", "b"))) == key(replace(base, layers=("b", "a", "b")))
    assert json.loads(json.dumps(base.identity())) == base.identity()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target", "all"),
        ("rank", 0),
        ("rank", 2.5),
        ("sketch", "dense"),
        ("sketch_dim", 0),
        ("sketch_dim", True),
        ("seed", -1),
        ("token_budget", 0),
        ("loss_normalization", "max"),
        ("layers", ()),
        ("warmup_steps", -1),
        ("warmup_learning_rate", float("nan")),
        ("warmup_learning_rate", 0.0),
        ("preconditioner", "sgd"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        GradientConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "config"),
    [
        ("layers", {"target": "last_layer", "layers": ("q_proj",)}),
        ("adapter", {"target": "linear", "adapter": "a"}),
        ("warmup_steps", {"target": "last_layer", "warmup_steps": 1}),
        ("warmup_steps", {"adapter": "a", "warmup_steps": 1}),
        ("sketch", {"target": "linear", "sketch": "factorised", "preconditioner": "adam"}),
    ],
)
def test_settings_that_make_no_sense_together_are_refused_by_name(field: str, config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        GradientConfig(**config)
