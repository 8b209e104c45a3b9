"""Rows out of the worked examples that the `lm_eval` package carries, read where it is installed."""

from __future__ import annotations

import json
import re
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from demo.rows import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

# Hindi and Thai are there too, but this model's tokenizer spends a token on nearly every byte of them.
EXAM_LANGUAGES = ("de", "es", "fr", "it", "pt")

WORKED_ANSWER = re.compile(r"Q: (?P<question>.+?)\nA: Let's think step by step\. ?(?P<answer>.+)", re.DOTALL)


class ExamplesMissingError(Exception):
    """The `lm_eval` package is not installed."""

    def __init__(self) -> None:
        super().__init__("lm_eval is not installed: run `make demo`, which installs requirements-demo.lock.")


def example_rows() -> Iterator[Row]:
    """Worked answers to exam questions, reasoning puzzles, and exam questions in several languages."""
    tasks = _tasks()
    yield from _worked_answers(tasks)
    yield from _puzzles(tasks)
    for language in EXAM_LANGUAGES:
        yield from _exam(tasks, language)


def _tasks() -> Path:
    # find_spec of a top-level name imports nothing, and lm_eval is installed without what it needs to be imported.
    spec = find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise ExamplesMissingError
    return Path(spec.origin).parent / "tasks"


def _worked_answers(tasks: Path) -> Iterator[Row]:
    subjects = json.loads((tasks / "mmlu/flan_cot_fewshot/_cot_prompts.json").read_text(encoding="utf-8"))
    for _, prompt in sorted(subjects.items()):
        _, *examples = re.split(r"\n\n(?=Q: )", prompt)
        for example in examples:
            if match := WORKED_ANSWER.fullmatch(example.strip()):
                yield Row("worked-answers", match["question"].strip(), match["answer"].strip())


def _puzzles(tasks: Path) -> Iterator[Row]:
    files = [*sorted((tasks / "bbh/cot_fewshot").glob("*.yaml")), tasks / "gsm8k/gsm8k-cot.yaml"]
    for file in files:
        for sample in _samples(file):
            question = sample.get("input") or sample.get("question")
            if question and sample.get("target"):
                yield Row("puzzles", question.strip(), sample["target"].strip())


def _exam(tasks: Path, language: str) -> Iterator[Row]:
    for file in sorted((tasks / f"llama3/instruct/mmlu_{language}").glob("*.yaml")):
        for sample in _samples(file):
            choices = sample["input_choice_list"]
            options = "\n".join(f"{letter}. {text}" for letter, text in sorted(choices.items()))
            letter = sample["input_correct_responses"][0]
            question = f"{sample['input_question'].strip()}\n{options}"
            answer = f"{letter}. {choices[letter]}"
            yield Row(f"exam-{language}", unescape(question), unescape(answer))


class _TaskLoader(yaml.SafeLoader):
    """Reads lm_eval's task files, taking their `!function` tags as the text that they are."""


_TaskLoader.add_constructor("!function", lambda _, node: node.value)


def _samples(file: Path) -> list[dict[str, Any]]:
    task = yaml.load(file.read_text(encoding="utf-8"), Loader=_TaskLoader)  # noqa: S506 - it is a SafeLoader
    samples = (task.get("fewshot_config") or {}).get("samples")
    return samples if isinstance(samples, list) else []
