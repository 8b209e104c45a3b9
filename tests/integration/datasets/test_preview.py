"""Rows as the model will read them: a worker renders them, the API shows them."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.conftest import ROWS, real_rows
from workers.stages.preview import TOKENS_SHOWN

if TYPE_CHECKING:
    from tests.integration.conftest import Service


@pytest.fixture(scope="module")
def service(shared_service: Service) -> Service:
    """One for all tests here, each of which registers a dataset."""
    return shared_service


def preview(service: Service, uri: str, **wanted: Any) -> dict[str, Any]:
    dataset_id = service.http.post("/datasets", json={"uri": uri}).json()["id"]
    service.work()
    model = {"uri": service.model_uri, **wanted.pop("model", {})}
    response = service.http.post(f"/datasets/{dataset_id}/previews", json={"model": model, **wanted})
    assert response.status_code == 202, response.text
    assert response.json()["state"] == "queued"
    service.work()
    return dict(service.http.get(response.headers["Location"]).json())


def test_pieces_spell_what_the_template_writes_and_the_response_is_learned(service: Service) -> None:
    found = preview(service, service.write_dataset(real_rows()))
    assert found["state"] == "succeeded", found["error"]
    assert found["shape"] == "prompt_response"
    assert [row["row"] for row in found["rows"]] == list(range(20))
    for row, source in zip(found["rows"], real_rows(), strict=False):
        text = (
            f"<|im_start|>user\n{source['prompt']}<|im_end|>\n<|im_start|>assistant\n{source['response']}<|im_end|>\n"
        )
        assert "".join(row["pieces"]) == text
        learned = "".join(piece for piece, is_learned in zip(row["pieces"], row["learned"], strict=True) if is_learned)
        assert learned == f"{source['response']}<|im_end|>"
        assert row["learned_tokens"] == sum(row["learned"])
        assert row["tokens"] == len(row["pieces"])


def test_rows_that_cannot_be_used_say_why_and_any_part_can_be_asked_for(service: Service) -> None:
    rows: list[dict[str, Any]] = list(real_rows())
    rows[7] = {"prompt": "an empty response", "response": " "}
    found = preview(service, service.write_dataset(rows), first_row=6, rows=3)
    assert [(row["row"], row["rejected"]) for row in found["rows"]] == [(6, None), (7, "empty_response"), (8, None)]
    beyond = preview(service, service.write_dataset(rows), first_row=ROWS)
    assert beyond["rows"] == []
    assert preview(service, service.write_dataset(rows), first_row=2**53 - 1)["rows"] == []
    answer = service.http.post(
        f"/datasets/{beyond['dataset_id']}/previews", json={"model": {"uri": service.model_uri}, "first_row": 2**53}
    )
    assert answer.json()["errors"][0]["field"] == "first_row"


def test_columns_and_length_are_those_that_are_asked_for(service: Service) -> None:
    uri = service.write_dataset([{"question": "2+2?", "prompt": "x", "response": "four " * 50}])
    found = preview(service, uri, columns={"prompt": "question", "response": "response"}, model={"max_length": 32})
    (row,) = found["rows"]
    assert "2+2?" in "".join(row["pieces"])
    assert (row["tokens"], row["truncated"]) == (32, True)


def test_what_is_stored_of_a_row_is_bounded_and_needs_no_latin_script(service: Service) -> None:
    long = {"prompt": "😀 naïve \x00 ", "response": "число " * 5000}
    found = preview(service, service.write_dataset([long]), model={"max_length": 100_000})
    (row,) = found["rows"]
    assert len(row["pieces"]) == len(row["learned"]) <= TOKENS_SHOWN < row["tokens"]
    assert "😀 naïve \N{REPLACEMENT CHARACTER} " in "".join(row["pieces"])
    assert len(json.dumps(found)) < 100_000


def test_faults_name_the_field_and_a_preview_belongs_to_its_dataset(service: Service) -> None:
    uri = service.write_dataset(real_rows())
    found = preview(service, uri, columns={"prompt": "nothing", "response": "response"})
    assert (found["state"], found["error"]["type"]) == ("failed", "dataset-unknown-column")
    url = f"/datasets/{found['dataset_id']}/previews"
    refused = service.http.post(url, json={"model": {"uri": "file:///etc"}})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "model.uri")
    other = service.http.post("/datasets", json={"uri": uri}).json()["id"]
    for wrong in (f"/datasets/{other}/previews/{found['id']}", f"{url}/{uuid.uuid4()}"):
        assert service.http.get(wrong).json()["type"] == "preview-not-found"
    assert service.http.post(f"/datasets/{uuid.uuid4()}/previews", json={"model": {"uri": uri}}).status_code == 404
