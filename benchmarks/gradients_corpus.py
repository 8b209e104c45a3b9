"""Real rows for measuring gradients: functions of the standard library and their docstrings, tokenised."""

from __future__ import annotations

import ast
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workers.data.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerBase

MODULES = ("argparse", "ast", "calendar", "configparser", "difflib", "fractions", "heapq", "shutil", "textwrap")


def documented_functions() -> Iterator[tuple[str, str]]:
    """(what a person would ask, docstring) for functions of the standard library, in a fixed order."""
    library = Path(sysconfig.get_path("stdlib"))
    for module in MODULES:
        for node in ast.walk(ast.parse((library / f"{module}.py").read_text())):
            if isinstance(node, ast.FunctionDef) and (docstring := ast.get_docstring(node)):
                arguments = ", ".join(argument.arg for argument in node.args.args)
                yield f"What does {module}.{node.name}({arguments}) in Python do?", docstring


def corpus(tokenizer: PreTrainedTokenizerBase, rows: int, *, max_length: int) -> list[Sample]:
    """`rows` chat samples of the tokenizer's own template, cut to `max_length` tokens, in a shuffled fixed order."""
    pairs = list(documented_functions())
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(pairs))[:rows]
    if order.size < rows:
        raise ValueError(f"{rows} rows wanted, the standard library has {order.size}")
    samples = []
    for row, place in enumerate(order):
        question, answer = pairs[place]
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
        )
        before = tokenizer.encode(prompt, add_special_tokens=False)
        after = tokenizer.encode(answer + tokenizer.eos_token, add_special_tokens=False)
        ids = np.array([*before, *after][:max_length], dtype=np.int32)
        samples.append(Sample(row=row, input_ids=ids, loss_mask=np.arange(ids.size) >= len(before)))
    return samples
