"""Sketches are found by row, survive kills, damage and two writers, and are addressed by what they were made from."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from app.core.storage.local import LocalArtifacts
from workers.gradients import row_store
from workers.gradients.config import GradientConfig
from workers.gradients.engine import Sketches
from workers.gradients.shards import ShardDamaged, ShardStore, gather, sketch_files, sketch_key

if TYPE_CHECKING:
    from pathlib import Path

    from workers.gradients.shards import StoredAs

SAMPLES, DIM, ROWS = 10, 6, 4
KEY = "ab" * 32


ALL = list(range(SAMPLES))


def digests(rows: list[int]) -> np.ndarray:
    """Of rows by their numbers; not in the order of the numbers."""
    return np.array([[row * 0x9E3779B97F4A7C15 % 2**64, row] for row in rows], dtype=np.uint64).reshape(-1, 2)


def store(root: Path, rows: list[int] = ALL, *, shard_rows: int = ROWS, stored_as: StoredAs = "float32") -> ShardStore:
    """The sketches of a pool of rows by their numbers."""
    artifacts = LocalArtifacts(root)
    return ShardStore(artifacts, KEY, digests=digests(rows), sketch_dim=DIM, shard_rows=shard_rows, stored_as=stored_as)


def sketches(rows: list[int], offset: float = 0.0) -> Sketches:
    numbers = np.array(rows, dtype=np.float32)
    values = numbers[:, None] * DIM + np.arange(DIM, dtype=np.float32) + np.float32(offset)
    finite = numbers != 3
    return Sketches(
        values=values,
        losses=numbers,
        finite=finite,
        token_losses=numbers / 2,
        unprompted=numbers / 4,
        end_losses=numbers / 8,
    )


def lacking(root: Path, rows: list[int]) -> list[int]:
    """The rows whose gradients a job over the pool would compute."""
    shards = store(root, rows)
    return [rows[place] for shard in range(shards.shards) for place in shards.wanted(shard)]


def fill(root: Path, rows: list[int] = ALL) -> list[str]:
    """Do all shards that are missing; the files that there are then, the oldest first."""
    shards = store(root, rows)
    for shard in shards.missing():
        places = shards.wanted(shard)
        shards.write(shard, places, sketches([rows[place] for place in places]))
    return files(root)


def files(root: Path) -> list[str]:
    found = (root / "sketches" / KEY).glob("shard-*.safetensors")
    return [path.stem.removeprefix("shard-") for path in sorted(found, key=lambda path: path.stat().st_mtime_ns)]


def assert_loaded(root: Path, rows: list[int] = ALL, **options: Any) -> None:
    expected = sketches(rows)
    stored = store(root, rows).load(**options)
    assert np.array_equal(stored.values, expected.values[expected.finite])
    assert np.array_equal(stored.token_losses, expected.token_losses)
    assert np.array_equal(stored.unprompted, expected.unprompted)
    assert np.array_equal(stored.end_losses, expected.end_losses)
    assert np.array_equal(stored.finite, expected.finite)


def file_of(root: Path, name: str) -> Path:
    return root / "sketches" / KEY / f"shard-{name}.safetensors"


def test_a_job_goes_on_at_the_first_missing_shard(tmp_path: Path) -> None:
    shards = store(tmp_path)
    assert shards.missing() == [0, 1, 2]
    assert [shards.rows(shard) for shard in range(3)] == [range(4), range(4, 8), range(8, 10)]
    assert [shards.size(shard) for shard in range(3)] == [4, 4, 2]
    shards.write(0, shards.wanted(0), sketches([0, 1, 2, 3]))
    assert store(tmp_path).missing() == [1, 2]


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    fill(tmp_path)
    assert_loaded(tmp_path)


@pytest.mark.parametrize(
    "other",
    [[*ALL, 10], [10, *ALL], ALL[::-1], [5, 2, 7], [7, 7, 10, 2, 10, 7], [11, 12, 13]],
    ids=["appended", "prepended", "backwards", "a-part", "repeated", "all-new"],
)
def test_another_pool_finds_its_rows_and_lacks_what_is_new_once(tmp_path: Path, other: list[int]) -> None:
    fill(tmp_path)
    new = list(dict.fromkeys(row for row in other if row not in ALL))
    assert lacking(tmp_path, other) == new
    shards = store(tmp_path, other)
    assert sum(shards.size(shard) for shard in shards.missing()) == len(new)
    fill(tmp_path, other)
    assert_loaded(tmp_path, other)


def test_what_another_worker_has_done_meanwhile_is_not_done_again(tmp_path: Path) -> None:
    shards = store(tmp_path)
    assert shards.missing() == [0, 1, 2]
    fill(tmp_path, [2, 3, 4, 5])
    assert [shards.wanted(shard).tolist() for shard in range(3)] == [[0, 1], [6, 7], [8, 9]]
    assert [shards.has(shard) for shard in range(3)] == [False] * 3


def test_rows_without_a_sketch_are_an_error_and_no_garbage(tmp_path: Path) -> None:
    fill(tmp_path, ALL[:6])
    with pytest.raises(ShardDamaged, match="shard 1"):
        store(tmp_path).load()


def test_a_matrix_too_large_for_memory_is_mapped_and_leaves_no_file(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    fill(tmp_path)
    assert isinstance(store(tmp_path).load(scratch=scratch, in_memory_bytes=0).values, np.memmap)
    assert_loaded(tmp_path, scratch=scratch, in_memory_bytes=0)
    assert list(scratch.iterdir()) == []


def test_a_scratch_disk_without_room_is_an_error_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found out in the middle it is a SIGBUS, and the end of the worker. No disk is full here: the call says so."""
    scratch = tmp_path / "scratch"
    fill(tmp_path)

    def full_disk(_descriptor: int, _start: int, size: int) -> None:
        assert size == SAMPLES * DIM * 4
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("workers.gradients.shards.os.posix_fallocate", full_disk)
    with pytest.raises(OSError, match=r"no room for the 240 bytes of the sketches \(No space left on device\): free"):
        store(tmp_path).load(scratch=scratch, in_memory_bytes=0)
    assert list(scratch.iterdir()) == []


def test_sketches_are_gathered_from_their_places_in_any_order(tmp_path: Path) -> None:
    fill(tmp_path)
    wanted = [8, 1, 9, 1, 4]
    names, file, row = store(tmp_path, wanted).places()
    files_of_key = sketch_files(LocalArtifacts(tmp_path), KEY)
    assert np.array_equal(gather(files_of_key, (names, file, row), DIM), sketches(wanted).values)
    file_of(tmp_path, names[file[0]]).unlink()
    with pytest.raises(ShardDamaged):
        gather(files_of_key, (names, file, row), DIM)


@pytest.mark.parametrize("place", [0, 4, 20, 100, -1])
def test_one_flipped_bit_anywhere_makes_a_files_rows_missing(tmp_path: Path, place: int) -> None:
    name = fill(tmp_path)[1]
    content = bytearray(file_of(tmp_path, name).read_bytes())
    content[place] ^= 1
    file_of(tmp_path, name).write_bytes(content)
    assert store(tmp_path).missing() == []  # nobody has read it
    with pytest.raises(ShardDamaged, match="shard 1"):
        store(tmp_path).load()
    assert lacking(tmp_path, ALL) == [4, 5, 6, 7]
    assert name in fill(tmp_path)
    assert_loaded(tmp_path)
    file_of(tmp_path, name).write_bytes(content)
    assert store(tmp_path).missing(verify=True) == [1]


@pytest.mark.parametrize("length", [0, 5, 100])
def test_a_truncated_file_is_damaged(tmp_path: Path, length: int) -> None:
    name = fill(tmp_path)[0]
    file_of(tmp_path, name).write_bytes(file_of(tmp_path, name).read_bytes()[:length])
    assert store(tmp_path).missing(verify=True) == [0]


def test_a_file_in_anothers_place_is_damaged(tmp_path: Path) -> None:
    first, second, _ = fill(tmp_path)
    file_of(tmp_path, second).write_bytes(file_of(tmp_path, first).read_bytes())
    assert store(tmp_path).missing(verify=True) == [1]


@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "flipped"])
def test_a_damaged_index_costs_work_and_gives_no_wrong_sketch(tmp_path: Path, damage: str) -> None:
    name = fill(tmp_path)[1]
    path = file_of(tmp_path, name).with_suffix(".index")
    content = bytearray(path.read_bytes())
    content[-1 if damage == "flipped" else 0] ^= 1
    content = {"empty": bytearray(), "cut": content[:-8]}.get(damage, content)
    path.unlink() if damage == "gone" else path.write_bytes(content)
    with pytest.raises(ShardDamaged, match="shard 1"):
        store(tmp_path).load()
    assert lacking(tmp_path, ALL) == [4, 5, 6, 7]
    fill(tmp_path)
    assert_loaded(tmp_path)


def test_the_last_of_two_writers_leaves_a_valid_file(tmp_path: Path) -> None:
    first, second = store(tmp_path), store(tmp_path)
    places = first.wanted(0)
    first.write(0, places, sketches([0, 1, 2, 3]))
    second.write(0, places, sketches([0, 1, 2, 3], offset=1e-3))
    assert first.missing() == [1, 2]
    assert len(files(tmp_path)) == 1
    assert [path.name for path in (tmp_path / "sketches" / KEY).iterdir() if path.name.startswith(".")] == []


def test_of_a_row_in_two_files_the_older_counts_before_and_after_a_merge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers may compute a row at once, and rounding may differ: a request must always find the same sketch."""
    everything = np.array([0, 1])
    store(tmp_path, [0, 1]).write(0, everything, sketches([0, 1]))
    for row in range(20, 26):
        store(tmp_path, [1, row]).write(0, everything, sketches([1, row], offset=1.0))
    assert_loaded(tmp_path, [0, 1])
    monkeypatch.setattr(row_store, "LOOSE_INDEXES", 3)
    assert_loaded(tmp_path, [0, 1])
    store(tmp_path, [1, 30]).write(0, everything, sketches([1, 30], offset=2.0))
    assert_loaded(tmp_path, [0, 1])


def test_many_indexes_become_one_and_what_was_deleted_is_missing_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_store, "LOOSE_INDEXES", 5)
    rows = list(range(60))
    fill(tmp_path, rows)
    assert_loaded(tmp_path, rows)
    directory = tmp_path / "sketches" / KEY
    assert list(directory.glob("shards-*.index"))
    name = files(tmp_path)[2]
    file_of(tmp_path, name).unlink()
    assert lacking(tmp_path, rows) == rows[2 * ROWS : 3 * ROWS]
    fill(tmp_path, rows)
    more = list(range(100))
    fill(tmp_path, more)
    for _ in range(2):
        assert_loaded(tmp_path, more)
    assert len(list(directory.glob("shards-*.index"))) <= 2, "what a larger one holds is deleted"


def test_in_half_precision_a_sketch_keeps_three_digits_whatever_its_length(tmp_path: Path) -> None:
    rows = [0, 1, 2, 4]
    shards = store(tmp_path, rows, stored_as="float16")
    values = np.random.default_rng(0).normal(size=(4, DIM)).astype(np.float32)
    values *= np.array([[1e-12], [1.0], [1e12], [np.inf]], dtype=np.float32)
    held = replace(sketches(rows), values=values, finite=np.array([True, True, True, False]))
    shards.write(0, shards.wanted(0), held)
    found = store(tmp_path, rows, stored_as="float16").load().values
    error = np.abs(found - values[:3]).max(axis=1) / np.abs(values[:3]).max(axis=1)
    assert (error < 2**-11).all()
    assert (error > 0).all(), "or it is not half precision"


def test_sketches_of_the_wrong_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shard 0"):
        store(tmp_path).write(0, np.array([0, 1]), sketches([0, 1, 2]))


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = store(tmp_path)

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.core.storage.local.os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        shards.write(0, np.array([0]), sketches([0]))
    assert list((tmp_path / "sketches" / KEY).iterdir()) == []


def test_artifact_names_stay_in_the_store(tmp_path: Path) -> None:
    for name in ("../outside", "/etc/outside", "a/../../outside"):
        with pytest.raises(ValueError, match="leaves the store"):
            LocalArtifacts(tmp_path).write(name, b"")


def key(config: GradientConfig, **changes: Any) -> str:
    facts = {"dataset_digest": "d", "model_revision": "m", "dtype": "float32", "frame": (512, None)}
    return sketch_key(**{**facts, **changes}, config=config)


def test_the_key_names_everything_that_a_sketch_depends_on() -> None:
    base = GradientConfig()
    keys = {
        key(base),
        key(base, stored_as="float16"),
        key(base, owner="p"),
        key(base, model_revision="n"),
        key(base, dtype="bfloat16"),
        key(replace(base, rank=4)),
        key(replace(base, seed=1)),
        key(replace(base, sketch_dim=64)),
        key(replace(base, sketch="factorised")),
        key(replace(base, target="linear")),
        key(replace(base, layers=("q_proj",))),
        key(replace(base, loss_normalization="mean")),
        key(replace(base, prompt_effect=True)),
        key(replace(base, prompt_effect=True), frame=(256, None)),
        key(replace(base, prompt_effect=True), frame=(512, "other")),
        key(replace(base, adapter="a")),
        key(replace(base, adapter="b")),
        key(replace(base, warmup_steps=1)),
        key(replace(base, warmup_steps=1), dataset_digest="e"),
        key(replace(base, warmup_steps=2)),
        key(replace(base, warmup_steps=2, warmup_learning_rate=1e-3)),
        key(replace(base, preconditioner="adam")),
        key(replace(base, preconditioner="adam"), dataset_digest="e"),
        key(replace(base, warmup_steps=2, preconditioner="adam")),
    }
    assert len(keys) == 24


def test_the_key_ignores_what_a_sketch_does_not_depend_on() -> None:
    base = GradientConfig()
    assert key(base) == key(base, dataset_digest="e") == key(base, frame=(256, "other"))
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
