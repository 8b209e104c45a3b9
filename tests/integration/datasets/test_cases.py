"""Rows as people have them, through the running service: what is learned of each, and what their exports say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spice_client.tables import Rows, Subset

if TYPE_CHECKING:
    from tests.integration.conftest import Service

CASES = Path(__file__).parent / "cases"
END = "<|im_end|>"
REFUSED = "refused"
GENERATED: dict[str, str] = {
    "late-input-key/d.jsonl": "".join(
        json.dumps(
            {"instruction": f"Say {i}.", "output": f"{i}"}
            if i < 110
            else {"instruction": "Sum up", "input": "the late text", "output": "sum"}
        )
        + "\n"
        for i in range(120)
    ),
    "csv-long-field/d.csv": f'prompt,response\n"{"word " * 30_000}",short\n2+2?,four\n',
    "csv-long-field/resp.csv": f'prompt,response\nRepeat,"{"word " * 30_000}"\n2+2?,four\n',
}
"""Inputs that are too large to be kept."""

LEARNED: dict[str, list[list[str] | str]] = {
    "weight-zero/d.jsonl": [["Sorry: the Baltic."]] * 2,
    "weight-zero/loss-false.jsonl": [["Sorry: the Baltic."], REFUSED, REFUSED],
    "sharegpt-system-column/d.json": [["Arr, ahoy!"]],
    "alpaca-history/d.json": [["Sixteen.", "Minus four."]],
    "reasoning-content/d.jsonl": [["<think>two and two make four</think>4"]] * 2,
    "think-last-turn/d.jsonl": [
        ["four"],
        ["four", "six"],
        ["<think>\nadd them\n</think>\n\nfour"],
        ["two", "<think>\nadd them\n</think>\n\nfour"],
    ],
    "eos-at-end/d.jsonl": [["four"], ["four", "six"]],
    "generation-in-macro/d.jsonl": [["four"], ["four", "six"]],
    "trl-prompt-completion/d.jsonl": [["four"]],
    "mixed-turn-structs/d.parquet": [["four"], ["six"]],
    "json-object/data.json": [["four"]],
    "json-object/columns.json": [["four"], ["two"]],
    "json-object/lines.json": [["four"]] * 3,
    "json-object/pretty.jsonl": [["four"]] * 2,
    "list-per-line/d.jsonl": [["four"]] * 3,
    "csv-long-field/d.csv": [REFUSED, ["four"]],
    "csv-long-field/resp.csv": [["word " * 500], ["four"]],
    "empty-last-turn/d.jsonl": [["four"]] * 3,
    "empty-last-turn/empty-user.jsonl": [["four"]],
    "features/d.parquet": [["four"], ["six"]],
    "parquet-other-column/broken-utf8.parquet": [["four"], ["six"]],
    "parquet-other-column/year10000.parquet": [["four"], ["six"]],
    "first-row-lacks-column/d.jsonl": [["four"], ["sum"]],
    "first-row-lacks-column/mixed.jsonl": [["four"], ["two"]],
    "date-format/d.jsonl": [["I can look that up. Shall I?"]],
    "tools-column/d.jsonl": [["I can look that up. Shall I?"]],
    "legacy-function-call/d.jsonl": [REFUSED] * 4,
}
SEEN: dict[str, str] = {
    "sharegpt-system-column/d.json": "<|im_start|>system\nTalk like a pirate.<|im_end|>\n",
    "alpaca-history/d.json": "system\nYou report temperatures in Oslo.<|im_end|>\n<|im_start|>user\nHow warm",
    "date-format/d.jsonl": "Today is 2024-07-26, week 30 (recent)",
    "tools-column/d.jsonl": 'Tools: [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]',
    "first-row-lacks-column/d.jsonl": "2+2?",
}
IGNORED: dict[str, set[str]] = {
    "sharegpt-system-column/d.json": {"tools"},
    "first-row-lacks-column/d.jsonl": {"note"},
    "first-row-lacks-column/mixed.jsonl": {"id", "meta"},
    "features/d.parquet": {"kind", "n", "tags"},
    "parquet-other-column/broken-utf8.parquet": {"note"},
    "parquet-other-column/year10000.parquet": {"valid_to"},
}


@pytest.fixture(scope="module")
def service(shared_service: Service) -> Service:
    """One for all tests here, each of which has files of its own."""
    return shared_service


def placed(service: Service, case: str) -> Path:
    path = service.directory / case
    path.parent.mkdir(exist_ok=True)
    if case in GENERATED:
        path.write_text(GENERATED[case])
    else:
        shutil.copy(CASES / case, path)
    return path


def model_for(service: Service, case: str, tiny_model: Path) -> str:
    template = CASES / Path(case).parent / "template.jinja"
    if not template.exists():
        return service.model_uri
    directory = service.directory / Path(case).with_suffix(".model")
    shutil.copytree(tiny_model, directory)
    (directory / "chat_template.jinja").write_text(template.read_text())
    return directory.as_uri()


def previewed(service: Service, uri: str, model: dict[str, Any]) -> list[dict[str, Any]]:
    dataset = service.http.post("/datasets", json={"uri": uri}).json()["id"]
    service.work()
    preview = service.http.post(f"/datasets/{dataset}/previews", json={"model": model, "rows": 50})
    assert preview.status_code == 202, preview.text
    service.work()
    found = service.http.get(preview.headers["Location"]).json()
    assert found["state"] == "succeeded", found["error"]
    return list(found["rows"])


def learned(row: dict[str, Any]) -> list[str] | str:
    if row["rejected"]:
        return REFUSED
    runs, before = [""], False
    for piece, is_learned in zip(row["pieces"], row["learned"], strict=True):
        if is_learned and not before:
            runs.append("")
        runs[-1] += piece if is_learned else ""
        before = is_learned
    assert all(run.endswith(END) for run in runs[1:])
    return [run.removesuffix(END) for run in runs[1:]]


@pytest.mark.parametrize("case", LEARNED)
def test_each_case_is_read_as_training_reads_it(service: Service, case: str, tiny_model: Path) -> None:
    path, expected = placed(service, case), LEARNED[case]
    model = {"uri": model_for(service, case, tiny_model), "max_length": 512}
    rows = previewed(service, path.as_uri(), model)
    if case == "csv-long-field/resp.csv":
        assert [row["truncated"] for row in rows] == [True, False]
        assert "".join(rows[0]["pieces"]).count("word") > 50
    else:
        assert [learned(row) for row in rows] == expected
    assert SEEN.get(case, "") in "".join("".join(row["pieces"]) for row in rows)
    if REFUSED in expected and set(map(str, expected)) == {REFUSED}:
        return
    job = service.run(
        {
            "dataset": {"uri": path.as_uri(), "max_rejected_fraction": 1.0},
            "model": model,
            "gradients": {"target": "last_layer", "sketch_dim": 16},
            "selection": {"budget": {"fraction": 1.0}},
        }
    )
    assert job["state"] == "succeeded", job["error"]
    assert job["result"]["rows_usable"] == len(expected) - expected.count(REFUSED)
    assert set(job["result"]["ignored_columns"]) == IGNORED.get(case, set())
    kept = service.http.get(job["links"]["subset"], params={"rows": "true"})
    columns = ("indices", "marginal_gains", "epsilons", "conflicts", "log_det")
    found = service.http.get(job["links"]["subset"]).json()
    picks = Subset(job["id"], *(found[column] for column in columns))
    read = {column for column in job["result"]["columns"].values() if column}
    rows_of_client = Rows(kept.content, job["result"]["format"], picks)
    assert len(rows_of_client.to_list(read)) == job["result"]["selected"]
    assert set(rows_of_client.to_arrow().column_names) >= read | IGNORED.get(case, set()), "of all rows, not the first"


def test_an_input_is_used_wherever_it_stands(service: Service) -> None:
    path = placed(service, "late-input-key/d.jsonl")
    dataset = service.http.post("/datasets", json={"uri": path.as_uri()}).json()["id"]
    service.work()
    body = {"model": {"uri": service.model_uri}, "first_row": 110, "rows": 2}
    preview = service.http.post(f"/datasets/{dataset}/previews", json=body)
    service.work()
    rows = service.http.get(preview.headers["Location"]).json()["rows"]
    assert all("Sum up\n\nthe late text" in "".join(row["pieces"]) for row in rows)
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    turned = previewed(service, path.as_uri(), {"uri": service.model_uri})
    assert [row["pieces"] for row in turned[8:10]] == [row["pieces"] for row in reversed(rows)]


def test_prompts_that_fill_the_length_are_told_what_length_would_do(service: Service) -> None:
    uri = service.write_dataset([{"prompt": "word " * 100, "response": "four"}] * 5)
    body = {**service.request(uri), "model": {"uri": service.model_uri, "max_length": 32}}
    error = service.run(body)["error"]
    assert "fill model.max_length" in error["detail"]
    needed = int(error["detail"].split("max_length: ")[1].split(" tokens")[0].replace(",", ""))
    rows = service.run({**body, "model": {"uri": service.model_uri, "max_length": needed}})
    assert rows["state"] == "succeeded"
    assert rows["result"]["truncated"] == 0
