from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from workers.data.corpus import Corpus, CorpusDamaged, build_corpus
from workers.data.errors import DatasetError
from workers.data.rejection import Reason, enforce_limit
from workers.data.stopping import Stopped

from .test_formats import ENCODERS, parquet

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

    from app.core.settings import Settings
    from tests.own_directory import SettingsFactory
    from workers.data.fetch import Snapshot

    from .conftest import SnapshotFactory

ROWS = [{"prompt": f"the cat {i}", "response": "sat on the mat " * (i % 7 + 1)} for i in range(600)]


def build(snapshot: Snapshot, tokenizer: PreTrainedTokenizerFast, settings: Settings, max_length: int = 256) -> Corpus:
    return build_corpus(snapshot, tokenizer, columns=None, max_length=max_length, settings=settings)


def test_samples_come_back_as_they_were_made(
    snapshot_of: SnapshotFactory, chatml: PreTrainedTokenizerFast, settings: Settings
) -> None:
    corpus = build(snapshot_of("a.jsonl", ENCODERS["jsonl"](ROWS)), chatml, settings)
    assert (len(corpus), corpus.rows_total, corpus.rejected, corpus.truncated) == (600, 600, {}, 0)
    assert corpus.rows.tolist() == list(range(600))
    samples = list(corpus)
    assert corpus.lengths.tolist() == [sample.tokens for sample in samples]
    assert corpus.tokens == sum(sample.tokens for sample in samples)
    for sample in samples[::97]:
        assert chatml.decode(sample.input_ids[sample.loss_mask]) == f"{ROWS[sample.row]['response']}<|im_end|>"
        assert (sample.input_ids.dtype, sample.loss_mask.dtype) == (np.int32, np.bool_)
    np.testing.assert_array_equal(corpus[-1].input_ids, samples[-1].input_ids)
    for i in (600, -601):
        with pytest.raises(IndexError):
            corpus[i]


def test_the_digest_is_that_of_the_samples_not_of_the_file(
    snapshot_of: SnapshotFactory, chatml: PreTrainedTokenizerFast, settings: Settings
) -> None:
    digests = {
        build(snapshot_of(f"a.{name}", encode(ROWS)), chatml, settings).digest for name, encode in ENCODERS.items()
    }
    assert len(digests) == 1
    other = build(snapshot_of("b.jsonl", ENCODERS["jsonl"](ROWS[:-1])), chatml, settings)
    shorter = build(snapshot_of("a.jsonl", ENCODERS["jsonl"](ROWS)), chatml, settings, max_length=60)
    shifted = build(snapshot_of("c.jsonl", b"broken\n" + ENCODERS["jsonl"](ROWS)), chatml, settings)
    assert len({*digests, other.digest, shorter.digest, shifted.digest}) == 4


def test_rows_that_cannot_be_used_are_named(
    snapshot_of: SnapshotFactory, chatml: PreTrainedTokenizerFast, settings: Settings
) -> None:
    good = '{"prompt": "a", "response": "the cat"}'
    lines = [
        good,
        "{broken",
        '{"prompt": "a", "response": ""}',
        json.dumps({"prompt": "a" * 300, "response": "b"}),
        json.dumps({"prompt": "a", "response": "b" * 300}),
        '{"prompt": "a", "response": 1}',
        '{"prompt": "a"}',
        '{"prompt": "a", "response": "\\ud800"}',
        "{also broken",
        good,
    ]
    corpus = build(snapshot_of("a.jsonl", "\n".join(lines).encode()), chatml, settings, max_length=100)
    assert {reason: rows.tolist() for reason, rows in corpus.rejected.items()} == {
        Reason.INVALID_JSON: [1, 8],
        Reason.EMPTY_RESPONSE: [2],
        Reason.RESPONSE_TRUNCATED: [3],
        Reason.WRONG_TYPE: [5],
        Reason.MISSING_VALUE: [6],
        Reason.INVALID_UTF8: [7],
    }
    assert corpus.rows.tolist() == [0, 4, 9]
    assert (corpus.rows_total, corpus.truncated) == (10, 1)


def test_a_long_parquet_row_is_rejected_like_any_other(
    snapshot_of: SnapshotFactory, chatml: PreTrainedTokenizerFast, make_settings: SettingsFactory
) -> None:
    content = parquet([{"prompt": "a", "response": "x" * 2000}, {"prompt": "a", "response": "b"}])
    corpus = build(snapshot_of("a.parquet", content), chatml, make_settings(row_max_bytes=1000))
    assert {reason: rows.tolist() for reason, rows in corpus.rejected.items()} == {Reason.ROW_TOO_LONG: [0]}


def test_columns_can_be_named(
    snapshot_of: SnapshotFactory, chatml: PreTrainedTokenizerFast, settings: Settings
) -> None:
    snapshot = snapshot_of("a.csv", b"x,y\nask,tell\n")
    with pytest.raises(DatasetError, match="no prompt and response among the columns 'x', 'y'"):
        build(snapshot, chatml, settings)
    columns = {"prompt": "x", "response": "y"}
    corpus = build_corpus(snapshot, chatml, columns=columns, max_length=64, settings=settings)
    assert corpus.shape.name == "prompt_response"
    with pytest.raises(DatasetError, match="no column 'z', which is to hold the response"):
        build_corpus(snapshot, chatml, columns={**columns, "response": "z"}, max_length=64, settings=settings)


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf\n"])
def test_an_empty_dataset_is_refused(
    snapshot_of: SnapshotFactory, chatml: PreTrainedTokenizerFast, settings: Settings, content: bytes
) -> None:
    with pytest.raises(DatasetError, match="has no rows"):
        build(snapshot_of("a.jsonl", content), chatml, settings)


def test_a_dataset_without_a_readable_row_is_refused_with_reasons(
    snapshot_of: SnapshotFactory, chatml: PreTrainedTokenizerFast, settings: Settings
) -> None:
    with pytest.raises(DatasetError, match=r"none of the 2 rows can be used: 2 invalid_json \(row 0, 1\)"):
        build(snapshot_of("a.jsonl", b"no\njson\n"), chatml, settings)


def test_a_dataset_without_a_usable_row_is_a_corpus_without_samples(
    snapshot_of: SnapshotFactory, chatml: PreTrainedTokenizerFast, settings: Settings
) -> None:
    corpus = build(snapshot_of("a.jsonl", b'{"prompt": "a", "response": ""}\n' * 3), chatml, settings)
    assert (len(corpus), corpus.tokens, corpus.rows_total) == (0, 0, 3)
    with pytest.raises(DatasetError, match="none of the 3 rows"):
        enforce_limit(corpus.rejected, corpus.rows_total)


class TestCache:
    def test_a_corpus_is_made_once(
        self,
        snapshot_of: SnapshotFactory,
        chatml: PreTrainedTokenizerFast,
        settings: Settings,
    ) -> None:
        snapshot = snapshot_of("a.jsonl", ENCODERS["jsonl"](ROWS))
        seen: list[int] = []
        first, again = (
            build_corpus(snapshot, chatml, columns=None, max_length=256, settings=settings, on_rows=seen.append)
            for _ in range(2)
        )
        assert seen == [256, 512, 600]
        assert (first.digest, first.path) == (again.digest, again.path)

    def test_what_decides_the_samples_decides_the_place(
        self,
        snapshot_of: SnapshotFactory,
        chatml: PreTrainedTokenizerFast,
        plain: PreTrainedTokenizerFast,
        settings: Settings,
    ) -> None:
        snapshot = snapshot_of("a.jsonl", ENCODERS["jsonl"](ROWS))
        swapped = {"prompt": "response", "response": "prompt"}
        corpora = [
            build(snapshot, chatml, settings),
            build(snapshot, chatml, settings, max_length=255),
            build(snapshot, plain, settings),
            build_corpus(snapshot, chatml, columns=swapped, max_length=256, settings=settings),
        ]
        assert len({corpus.path for corpus in corpora}) == 4

    @pytest.mark.parametrize("file", ["ids.bin", "mask.bin", "offsets.bin", "rows.bin", "about.json", "rejected.npz"])
    @pytest.mark.parametrize("fault", ["gone", "cut", "altered"])
    def test_a_damaged_corpus_is_made_again(
        self,
        snapshot_of: SnapshotFactory,
        chatml: PreTrainedTokenizerFast,
        settings: Settings,
        file: str,
        fault: str,
    ) -> None:
        snapshot = snapshot_of("a.jsonl", ENCODERS["jsonl"](ROWS[:20]) + b"broken\n")
        first = build(snapshot, chatml, settings)
        digest, path = first.digest, first.path / file
        data = path.read_bytes()
        if fault == "gone":
            path.unlink()
        else:
            path.write_bytes(data[: len(data) // 2] if fault == "cut" else bytes([data[0] ^ 1]) + data[1:])
        with pytest.raises(CorpusDamaged):
            Corpus.open(first.path)
        assert build(snapshot, chatml, settings).digest == digest
        assert path.read_bytes() == data

    def test_giving_up_leaves_nothing(
        self, snapshot_of: SnapshotFactory, chatml: PreTrainedTokenizerFast, settings: Settings
    ) -> None:
        snapshot = snapshot_of("a.jsonl", ENCODERS["jsonl"](ROWS))
        answers = iter([False, True])
        with pytest.raises(Stopped):
            build_corpus(
                snapshot,
                chatml,
                columns=None,
                max_length=256,
                settings=settings,
                should_stop=lambda: next(answers),
            )
        assert list((settings.cache_path / "corpora").iterdir()) == []

    def test_two_workers_that_build_the_same_corpus_agree(
        self, snapshot_of: SnapshotFactory, chatml: PreTrainedTokenizerFast, settings: Settings
    ) -> None:
        snapshot = snapshot_of("a.jsonl", ENCODERS["jsonl"](ROWS[:300]))
        others: list[Path] = []

        def other_worker(_: int) -> None:
            if not others:
                others.append(settings.cache_path)
                others[0] = build(snapshot, chatml, settings).path

        mine = build_corpus(snapshot, chatml, columns=None, max_length=256, settings=settings, on_rows=other_worker)
        assert others == [mine.path]
        assert [path.name for path in mine.path.parent.iterdir()] == [mine.path.name]


def test_memory_does_not_grow_with_the_dataset(
    snapshot_of: SnapshotFactory,
    chatml: PreTrainedTokenizerFast,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workers.data.corpus.BATCH_ROWS", 50)

    def peak(copies: int) -> int:
        snapshot = snapshot_of("a.jsonl", ENCODERS["jsonl"](ROWS[:100]) * copies)
        tracemalloc.start()
        try:
            build(snapshot, chatml, settings)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)
    assert peak(10) < 1.3 * peak(2)


class TestLimit:
    def test_few_rejected_rows_pass(self) -> None:
        enforce_limit({}, 10)
        enforce_limit({Reason.INVALID_JSON: [3]}, 20)
        enforce_limit({Reason.INVALID_JSON: [0, 1, 2]}, 4, max_rejected_fraction=0.75)

    def test_too_many_fail_with_counts_and_rows(self) -> None:
        rejected = {Reason.WRONG_TYPE: [9], Reason.INVALID_JSON: np.arange(1000)}
        with pytest.raises(DatasetError) as caught:
            enforce_limit(rejected, 5000)
        assert caught.value.reason_code == "too_many_rejected"
        assert caught.value.message.startswith(
            "1,001 of 5,000 rows cannot be used, the limit is 5.0%: "
            "1,000 invalid_json (row 0, 1, 2, 3, 4, ...); 1 wrong_type (row 9)."
        )

    def test_a_dataset_without_usable_rows_fails_whatever_the_limit(self) -> None:
        with pytest.raises(DatasetError, match="none of the 2 rows"):
            enforce_limit({Reason.EMPTY_RESPONSE: [0, 1]}, 2, max_rejected_fraction=1.0)
