"""Pools with planted mistakes, and the sketches of their rows with and without: computed once, kept under var/.

A mistake is planted in a row's response. Four kinds: the response of another row (`swapped`), its words in another
order (`shuffled`), its second half cut off (`cut`), letters in place of its words (`gibberish`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.smollm2 import smollm2_directory
from benchmarks.text_gradients import CACHE
from demo.dataset import choose
from demo.examples import example_rows
from demo.functions import function_rows
from demo.rows import shuffled
from workers.data.conversation import Conversation
from workers.data.samples import Sample
from workers.data.tokenisation import ConversationEncoder, Encoded
from workers.data.without_prompt import PromptFrame
from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.models.proxy import ProxyModel, load_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    Pair = tuple[str, str]

Kind = Literal["swapped", "shuffled", "cut", "gibberish"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SHARES = (0.1, 0.2, 0.4)
TENTHS = 4
"""Tenths of the rows that have mistakes planted."""
FIELDS = ("values", "token_losses", "unprompted", "end_losses")
MAX_LENGTH = 512
MAX_BYTES, MAX_LLAMA_BYTES = 280, 900
VERSION = 1
"""Raised where the same rows would give other figures."""
LLAMA = {
    "vocabulary": 4096,
    "hidden": 96,
    "inner": 288,
    "blocks": 3,
    "heads": 4,
    "steps": 500,
    "batch": 24,
    "tokens": 160,
}
RATE = 3e-3
END = "</s>"


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What a model says of n rows: as in `workers.gradients.engine.Sketches`.

    Attributes:
        values: (n, p), float32.
        token_losses: (n,), float32.
        unprompted: (n,), float32.
        end_losses: (n,), float32.
    """

    values: NDArray[np.float32]
    token_losses: NDArray[np.float32]
    unprompted: NDArray[np.float32]
    end_losses: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Rows as they are, and some of them with each kind of mistake.

    Attributes:
        name: Of the model that scored them.
        clean: All n rows.
        places: Rows that have mistakes planted, (m,), int64: `TENTHS` tenths of n, one after the other.
        wrong: By kind, these rows with the mistake.
    """

    name: str
    clean: Scored
    places: NDArray[np.int64]
    wrong: dict[Kind, Scored]

    @property
    def described(self) -> str:
        """The model and the number of rows."""
        return f"{self.name}, {len(self.clean.values):,} rows"

    def with_mistakes(self, kind: Kind, tenths: Iterable[int]) -> tuple[Scored, NDArray[np.bool_]]:
        """The pool with some tenths of its rows wrong, and which they are, (n,), bool."""
        parts = np.array_split(np.arange(len(self.places)), TENTHS)
        rows = np.concatenate([parts[tenth] for tenth in tenths])
        chosen, spoilt = self.places[rows], self.wrong[kind]
        fields = []
        for name in FIELDS:
            mixed = getattr(self.clean, name).copy()
            mixed[chosen] = getattr(spoilt, name)[rows]
            fields.append(mixed)
        return Scored(*fields), np.isin(np.arange(len(self.clean.values)), chosen)


def smollm2_pool(rows: int) -> Pool:
    """Short rows like the demo's, scored by SmolLM2-135M-Instruct."""
    pairs = [(row.prompt, row.response) for row in choose(chain(function_rows(), example_rows()), rows, MAX_BYTES)]

    def model() -> ProxyModel:
        return load_model(smollm2_directory(), dtype="float32", device=torch.device("cpu"))

    return _pool("SmolLM2", pairs, model, GradientConfig(token_budget=2048))


def llama_pool(rows: int) -> Pool:
    """Docstrings and tasks, scored by a small Llama that was trained on others of their kind."""
    pool, others = _llama_pairs(rows)
    return _pool("Llama", pool, lambda: _trained(others), GradientConfig(sketch_dim=512, token_budget=8192))


def llama_samples(rows: int) -> tuple[ProxyModel, list[Sample], list[Sample]]:
    """That Llama, the rows of its pool, and the same rows each with the response of another."""
    pool, others = _llama_pairs(rows)
    model = _trained(others)
    encoder = ConversationEncoder(model.tokenizer, MAX_LENGTH)
    responses = planted([response for _, response in pool], "swapped", 0)
    swapped = [(prompt, response) for (prompt, _), response in zip(pool, responses, strict=True)]
    return model, _samples(encoder, pool), _samples(encoder, swapped)


def _llama_pairs(rows: int) -> tuple[list[Pair], list[Pair]]:
    """The pool's pairs, and those that the Llama learns from."""
    all_rows = shuffled(row for row in chain(function_rows(), example_rows()) if row.size < MAX_LLAMA_BYTES)
    pairs = [(row.prompt, row.response) for row in all_rows]
    return pairs[:rows], pairs[rows:]


def planted(responses: Sequence[str], kind: Kind, seed: int) -> list[str]:
    """The responses, each with a mistake of that kind.

    Args:
        responses: Two or more.
        kind: Of mistake.
        seed: Of the order of words and of the letters.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    if kind == "swapped":
        return [*responses[1:], responses[0]]
    if kind == "cut":
        return [response[: max(1, len(response) // 2)] for response in responses]
    words = [response.split(" ") for response in responses]
    if kind == "shuffled":
        return [" ".join(random.permutation(line).tolist()) for line in words]
    return [" ".join(_letters(random, len(word)) for word in line) for line in words]


def _letters(random: np.random.Generator, count: int) -> str:
    return "".join(chr(ord("a") + int(letter)) for letter in random.integers(0, 26, max(1, count)))


def _pool(name: str, pairs: list[Pair], model: Callable[[], ProxyModel], config: GradientConfig) -> Pool:
    """The pool, out of its file if it was made before."""
    recipe = json.dumps([VERSION, name, LLAMA, RATE, config.identity(), pairs], sort_keys=True)
    path = CACHE / f"dirty_{name.lower()}_{len(pairs)}_{sha256(recipe.encode()).hexdigest()[:16]}.npz"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part.npz")
        np.savez(unfinished, **_scored_variants(pairs, model(), config))  # type: ignore[arg-type]
        unfinished.rename(path)
    with np.load(path) as stored:
        found = {key: stored[key] for key in stored.files}
    return Pool(name, _of(found, "clean"), found["places"], {kind: _of(found, kind) for kind in KINDS})


def _of(stored: dict[str, NDArray[np.float32]], variant: str) -> Scored:
    return Scored(*(stored[f"{variant}_{name}"] for name in FIELDS))


def _scored_variants(pairs: list[Pair], model: ProxyModel, config: GradientConfig) -> dict[str, NDArray[np.generic]]:
    places = _places(len(pairs))
    encoder, engine = ConversationEncoder(model.tokenizer, MAX_LENGTH), GradientEngine(model, config)
    frame = PromptFrame.of(encoder, model.tokenizer)
    found: dict[str, NDArray[np.generic]] = {"places": places}

    def add(variant: str, chosen: list[Pair]) -> None:
        samples = _samples(encoder, chosen)
        scored = engine.sketch(samples, unprompted=[frame.alone(sample, MAX_LENGTH) for sample in samples])
        for name in FIELDS:
            found[f"{variant}_{name}"] = getattr(scored, name)

    add("clean", pairs)
    for kind in KINDS:
        add(kind, _spoilt(pairs, places, kind))
    return found


def _places(rows: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.PCG64(5)).permutation(rows)[: TENTHS * (rows // 10)]


def _spoilt(pairs: Sequence[Pair], places: NDArray[np.int64], kind: Kind) -> list[Pair]:
    """The pairs at these places with mistakes. Responses are swapped within a tenth, which is wrong as a whole."""
    spoilt: list[Pair] = []
    for number, tenth in enumerate(np.array_split(places, TENTHS)):
        part = [pairs[place] for place in tenth]
        responses = planted([response for _, response in part], kind, number)
        spoilt += [(prompt, response) for (prompt, _), response in zip(part, responses, strict=True)]
    return spoilt


def _samples(encoder: ConversationEncoder, pairs: Sequence[Pair]) -> list[Sample]:
    turns = [[{"role": "user", "content": prompt}, {"role": "assistant", "content": said}] for prompt, said in pairs]
    samples = []
    for row, encoded in enumerate(encoder.encode([Conversation(both, [False, True]) for both in turns])):
        if not isinstance(encoded, Encoded):
            raise TypeError(f"{pairs[row][0][:60]!r} can't be encoded: {encoded}")
        samples.append(Sample(row, encoded.input_ids, encoded.loss_mask))
    return samples


def _trained(pairs: list[Pair]) -> ProxyModel:
    """A Llama that has seen some batches of the pairs, each in full, drawn at random."""
    backend = ByteLevelBPETokenizer()
    backend.train_from_iterator(
        chain.from_iterable(pairs), LLAMA["vocabulary"], special_tokens=[END], show_progress=False
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend._tokenizer, eos_token=END)  # noqa: SLF001
    samples = _samples(ConversationEncoder(tokenizer, MAX_LENGTH), pairs)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=LLAMA["vocabulary"],
            hidden_size=LLAMA["hidden"],
            intermediate_size=LLAMA["inner"],
            num_hidden_layers=LLAMA["blocks"],
            num_attention_heads=LLAMA["heads"],
            num_key_value_heads=LLAMA["heads"],
            max_position_embeddings=MAX_LENGTH,
            tie_word_embeddings=True,
        )
    )
    adam = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, total_steps=LLAMA["steps"])
    random = np.random.Generator(np.random.PCG64(0))
    for _ in range(LLAMA["steps"]):
        chosen = [samples[place] for place in random.integers(0, len(samples), LLAMA["batch"])]
        rows = [torch.from_numpy(one.input_ids[: LLAMA["tokens"]]).long() for one in chosen]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
        logits = model(ids.clamp(min=0), use_cache=False).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), ignore_index=-100)
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    model.eval().requires_grad_(requires_grad=False)
    return ProxyModel(model=model, tokenizer=tokenizer, revision="trained", path=Path())
