"""Several chat templates, in every layout that tokenizers are saved in: one is named, or is the default."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from workers.data.chat_template import ChatTemplate
from workers.data.errors import DatasetError
from workers.models.files import TEMPLATES, model_files
from workers.models.limits import ModelLimits
from workers.models.tokenizer import TokenizerCache

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LAYOUTS = ("directory", "tokenizer_config.json", "chat_template.json")
SEVERAL = {"rag": "rag {{ messages[0].content }}", "tool_use": "tools {{ messages[0].content }}"}


def saved_with(path: Path, templates: Mapping[str, str], layout: str) -> Path:
    """The model with these templates alone."""
    (path / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((path / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    listed: list[dict[str, Any]] = [{"name": name, "template": source} for name, source in templates.items()]
    if layout == "tokenizer_config.json":
        config["chat_template"] = listed
    elif layout == "chat_template.json":
        (path / layout).write_text(json.dumps({"chat_template": dict(templates)}))
    else:
        (path / TEMPLATES).mkdir()
        for name, source in templates.items():
            target = path / "chat_template.jinja" if name == "default" else path / TEMPLATES / f"{name}.jinja"
            target.write_text(source)
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


@pytest.fixture
def model(saved_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved_model, tmp_path / "model")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_a_default_the_error_names_the_choices_and_the_request_names_one(model: Path, layout: str) -> None:
    tokenizer = TokenizerCache().get(saved_with(model, SEVERAL, layout)).tokenizer
    with pytest.raises(DatasetError, match=r"none is its default: set model.chat_template to one of 'rag', 'tool_use'"):
        ChatTemplate(tokenizer)
    with pytest.raises(DatasetError, match=r"model.chat_template is 'x', and the tokenizer has 'rag', 'tool_use'"):
        ChatTemplate(tokenizer, name="x")
    template = ChatTemplate(tokenizer, name="rag")
    assert (template.source, template.source_with_tools) == (SEVERAL["rag"],) * 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_with_a_default_rows_with_tools_have_their_own(model: Path, layout: str) -> None:
    tokenizer = TokenizerCache().get(saved_with(model, {"default": "plain", **SEVERAL}, layout)).tokenizer
    template = ChatTemplate(tokenizer)
    assert (template.source, template.source_with_tools) == ("plain", SEVERAL["tool_use"])


def test_a_single_template_of_a_processor_is_the_tokenizers(model: Path) -> None:
    saved_with(model, {}, "chat_template.json")
    (model / "chat_template.json").write_text(json.dumps({"chat_template": "of the processor"}))
    assert ChatTemplate(TokenizerCache().get(model).tokenizer).source == "of the processor"


def test_a_further_template_is_part_of_the_revision_and_seen_when_it_changes(model: Path) -> None:
    limits, cache = ModelLimits(), TokenizerCache()
    before = cache.get(model)
    (model / TEMPLATES).mkdir()
    (model / TEMPLATES / "rag.jinja").write_text("rag")
    added = cache.get(model)
    assert added.revision == model_files(model, limits).revision != before.revision
    (model / TEMPLATES / "rag.jinja").write_text("rag, changed")
    assert cache.get(model).tokenizer.chat_template["rag"] == "rag, changed"
