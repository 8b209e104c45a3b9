"""The model's tokenizer without its weights: all that reading a dataset needs, on a machine of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from transformers import AutoConfig, AutoTokenizer

from workers.models.architecture import longest_input
from workers.models.errors import ModelError, in_brief
from workers.models.files import model_files, stamp
from workers.models.limits import ModelLimits

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from workers.models.files import ModelFiles


@dataclass(frozen=True, slots=True, eq=False)
class ModelTokenizer:
    """A tokenizer and the model that it belongs to.

    Attributes:
        tokenizer: The tokenizer.
        revision: The model's, as `ProxyModel.revision`.
        longest: Tokens that the model was made for; None where its configuration doesn't say.
    """

    tokenizer: PreTrainedTokenizerBase
    revision: str
    longest: int | None


class TokenizerCache:
    """Keeps the last tokenizer. Files that changed (size or time of change) are read again."""

    def __init__(self, limits: ModelLimits | None = None) -> None:
        """Start empty."""
        self._limits = limits or ModelLimits()
        self._key: tuple[object, ...] | None = None
        self._kept: ModelTokenizer | None = None

    def get(self, path: Path) -> ModelTokenizer:
        """The tokenizer of a model's directory.

        Raises:
            ModelError: The directory is not one of a model that can be used, or its tokenizer can't be read.
        """
        key = (path, stamp(path))
        if self._kept is None or key != self._key:
            files = model_files(path, self._limits)
            with files.unchanged(), files.alone() as directory:
                self._kept, self._key = _loaded(files, directory), key
        return self._kept


def _loaded(files: ModelFiles, directory: Path) -> ModelTokenizer:
    """The tokenizer of the files that `directory` shows.

    Raises:
        ModelError: It, or the model's configuration, can't be read.
    """
    what, by = "configuration", "model"
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        what, by = "tokenizer", "tokenizer"
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever a broken file brings about
        raise ModelError(
            f"model.uri: the {what} of {files.path.name} can't be loaded ({in_brief(error)}): save it with "
            f"{by}.save_pretrained"
        ) from error
    return ModelTokenizer(tokenizer, files.revision, longest_input(config))
