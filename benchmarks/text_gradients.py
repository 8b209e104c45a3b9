"""Real sketches to select from: per-sample gradients of a small Llama on the docstrings of installed packages.

    python -m benchmarks.text_gradients

The model is trained on the same rows first, so that its gradients are those of a model that has learned something.
Model and rows are small enough for the whole to take a minute or two; sketches are kept under var/.
"""

from __future__ import annotations

import ast
import json
import sysconfig
import warnings
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from workers.data.samples import Sample
from workers.gradients.config import GradientConfig
from workers.gradients.engine import GradientEngine
from workers.models.proxy import ProxyModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

CACHE = Path("var/benchmarks")

#: Everything that the numbers depend on, the installed text apart; changed numbers are another file.
RECIPE = {
    "version": 1,
    "vocabulary": 2048,
    "question": 16,
    "answer": 32,
    "hidden": 64,
    "inner": 192,
    "blocks": 2,
    "heads": 4,
    "steps": 300,
    "batch": 64,
    "rate": 3e-3,
}
IGNORED = -100


def text_gradients(count: int, p: int) -> Tensor:
    """Sketches of the gradients of a fresh LoRA, shape (n, p), float32, n = `count` or as many as are installed."""
    config = GradientConfig(sketch_dim=p, token_budget=8192)
    pairs = list(islice(documented_functions(), count))
    recipe = json.dumps([RECIPE, config.identity(), pairs], sort_keys=True)
    path = CACHE / f"text_gradients_{len(pairs)}_{p}_{sha256(recipe.encode()).hexdigest()[:16]}.npy"
    if not path.exists():
        samples = tokenised(pairs)
        values = GradientEngine(trained(samples), config).sketch(samples).values
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part.npy")
        np.save(unfinished, values)
        unfinished.rename(path)
    return torch.from_numpy(np.load(path))


def described(sketches: Tensor) -> str:
    """What the rows of `text_gradients` are, and how their spectrum decays."""
    return (
        f"per-sample gradients (LoRA r=8, by workers.gradients) of a Llama of {RECIPE['blocks']} blocks of "
        f"{RECIPE['hidden']}, trained for {RECIPE['steps']} steps on these rows: signatures to docstrings of installed "
        f"Python packages; {participation(sketches):.0f} of {sketches.shape[1]} directions by participation ratio"
    )


def participation(rows: Tensor) -> float:
    """(sum of l)^2 / sum of l^2 over the eigenvalues l of the rows' second moment: how many directions they fill."""
    moment = rows.T.double() @ rows.double()
    return float(moment.trace().square() / moment.square().sum())


def documented_functions() -> Iterator[tuple[str, str]]:
    """(signature, docstring) of functions of the standard library and installed packages, in the order of paths."""
    for root in (Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib")):
        for path in sorted(root.rglob("*.py")):
            if not {"site-packages", "test"} & set(path.relative_to(root).parts):
                yield from _functions(path)


def _functions(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # templates, and files that are wrong on purpose
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (docstring := ast.get_docstring(node)):
            yield f"def {node.name}({ast.unparse(node.args)}):", docstring


def tokenised(pairs: list[tuple[str, str]]) -> list[Sample]:
    """The first tokens of each question and of its answer, in a vocabulary learned from them all."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator((text for pair in pairs for text in pair), RECIPE["vocabulary"], show_progress=False)
    samples = []
    for row, (question, answer) in enumerate(pairs):
        before = tokenizer.encode(question).ids[: RECIPE["question"]]
        ids = np.array(before + tokenizer.encode(answer).ids[: RECIPE["answer"]], dtype=np.int32)
        samples.append(Sample(row, ids, np.arange(ids.size) >= len(before)))
    return samples


def trained(samples: list[Sample]) -> ProxyModel:
    """A Llama that has seen some batches of the samples, each in full, drawn at random."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=RECIPE["vocabulary"],
        hidden_size=RECIPE["hidden"],
        intermediate_size=RECIPE["inner"],
        num_hidden_layers=RECIPE["blocks"],
        num_attention_heads=RECIPE["heads"],
        num_key_value_heads=RECIPE["heads"],
        max_position_embeddings=RECIPE["question"] + RECIPE["answer"],
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    steps = RECIPE["steps"]
    adam = torch.optim.AdamW(model.parameters(), lr=RECIPE["rate"])
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, RECIPE["rate"], total_steps=steps)
    random = np.random.Generator(np.random.PCG64(0))
    for _ in range(steps):
        ids, labels = _batch([samples[at] for at in random.integers(0, len(samples), RECIPE["batch"])])
        logits = model(ids, use_cache=False).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    model.eval().requires_grad_(requires_grad=False)
    return ProxyModel(model=model, tokenizer=None, revision="trained", path=Path())  # type: ignore[arg-type]


def _batch(samples: list[Sample]) -> tuple[Tensor, Tensor]:
    """Token ids and labels, padded at the end, where causal attention never looks back from."""
    length = max(sample.tokens for sample in samples)
    ids = np.zeros((len(samples), length), dtype=np.int64)
    labels = np.full_like(ids, IGNORED)
    for at, sample in enumerate(samples):
        ids[at, : sample.tokens] = labels[at, : sample.tokens] = sample.input_ids
    return torch.from_numpy(ids), torch.from_numpy(labels)


if __name__ == "__main__":
    print(described(text_gradients(20_000, 512)))
