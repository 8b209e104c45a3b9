"""Which files make a model, and every check of them that needs no loading.

A model may come from anybody. Of its directory only files of known kinds are looked at, each within a limit of size;
what is loaded sees those files alone, through a directory of links that is made for the moment. So a pickle, a Python
file or an adapter that lies beside them is out of reach whatever a configuration says.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from workers.models.errors import ModelError
from workers.models.quantised import settled, stored_as
from workers.models.safetensors_header import check_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from workers.models.limits import ModelLimits
    from workers.models.safetensors_header import Tensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TEMPLATES = "additional_chat_templates"
"""Directory of the templates besides the default, NAME.jinja for each; the only directory that is looked into."""
PROCESSOR_TEMPLATE = "chat_template.json"
"""Where older releases put the template, or several by name, of a model that also takes pictures."""
SMALL_SUFFIXES = frozenset({".json", ".jinja", ".txt", ".model"})
NOT_NEEDED = frozenset({"generation_config.json", "adapter_config.json", INDEX})
"""Nothing is generated; an adapter's configuration names another model; the index comes with the weights."""
CODE_IN = (CONFIG, TOKENIZER_CONFIG, "processor_config.json", "preprocessor_config.json")
IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation(_\w+)?")
"""Settings by which a configuration chooses kernels."""
MOST_FILES = 10_000


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in a model's directory, wherever that is.

    Attributes:
        place: The directory's name, for messages.
        sizes: File name to bytes; of `TEMPLATES` with the directory before it.
    """

    place: str
    sizes: Mapping[str, int]

    def small(self, limits: ModelLimits) -> list[str]:
        """Names of the files that are needed besides the weights, sorted.

        Raises:
            ModelError: There is no configuration or nothing that weights could be in, or a file is too large.
        """
        if CONFIG not in self.sizes:
            raise ModelError(f"model.uri: {self.place} has no {CONFIG}: give the directory of a saved model")
        if not self.sizes.keys() & {WEIGHTS, INDEX}:
            raise ModelError(
                f"model.uri: {self.place} has no {WEIGHTS}: other weight files can run code when opened; save the "
                "model again with safe_serialization=True"
            )
        names = sorted(
            name
            for name in self.sizes
            if PurePath(name).suffix in (SMALL_SUFFIXES if "/" not in name else {".jinja"}) and name not in NOT_NEEDED
        )
        if WEIGHTS not in self.sizes:
            names.append(INDEX)
        for name in names:
            if self.sizes[name] > limits.json_max_bytes:
                raise ModelError(
                    f"model.uri: {self.place}/{name} has {self.sizes[name]:,} bytes, the limit is "
                    f"{limits.json_max_bytes:,}: raise SPICE_MODEL_JSON_MAX_BYTES if it has to be as large as that"
                )
        return sorted(names)

    def weights(self, index: bytes | None, limits: ModelLimits) -> list[str]:
        """Names of the weight files, sorted.

        Args:
            index: Content of `INDEX`, which counts if there is no `WEIGHTS`.
            limits: How large they may be.

        Raises:
            ModelError: The index is broken or names files that are not in the directory, or all are too large.
        """
        names = [WEIGHTS] if WEIGHTS in self.sizes else self._indexed(index or b"")
        total = sum(self.sizes[name] for name in names)
        if total > limits.max_bytes:
            raise ModelError(
                f"model.uri: the weights of {self.place} have {total:,} bytes, the limit is {limits.max_bytes:,}: "
                "use a smaller proxy model, or raise SPICE_MODEL_MAX_BYTES"
            )
        return names

    def _indexed(self, index: bytes) -> list[str]:
        content = parsed(index, f"{self.place}/{INDEX}")
        files = content.get("weight_map") if isinstance(content, dict) else None
        if not isinstance(files, dict) or not files:
            raise ModelError(f"model.uri: {self.place}/{INDEX} has no weight_map: copy the model again")
        for name in files.values():
            # A path here would be joined to the directory's, and lead out of it.
            if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+\.safetensors", name, re.ASCII):
                raise ModelError(
                    f"model.uri: {self.place}/{INDEX} names {str(name)[:100]!r}: it must name .safetensors files "
                    "beside it"
                )
            if name not in self.sizes:
                raise ModelError(f"model.uri: {self.place} lacks {name}, which its index names: copy the model again")
        return sorted(set(files.values()))


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's directory on this machine, checked.

    Attributes:
        path: The directory.
        files: What makes the model, sorted by name.
        tensors: What the headers of the weight files tell.
        weights_stored_as: Format of quantised weights; None for plain numbers.
    """

    path: Path
    files: tuple[Path, ...]
    tensors: tuple[Tensor, ...]
    weights_stored_as: str | None = None

    @property
    def revision(self) -> str:
        """Sha256, in hex, over the name and content of each file; the same wherever the directory lies."""
        total = hashlib.sha256()
        for file in self.files:
            with file.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").hexdigest()
            total.update(f"{self.name_of(file)}\0{content}\n".encode())
        return total.hexdigest()

    def name_of(self, file: Path) -> str:
        """A file's name in the directory."""
        return file.relative_to(self.path).as_posix()

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Around reading them and telling their revision: what is scored and what is said to be must be one model.

        Raises:
            ModelError: Somebody wrote to one of the files meanwhile.
        """
        before = _stamp_of(self.files)
        yield
        if _stamp_of(self.files) != before:
            raise ModelError(
                f"model.uri: {self.path.name} was written to while it was read: submit again when it is whole"
            )

    @contextmanager
    def alone(self, dtype: str = "float32") -> Iterator[Path]:
        """A directory that holds these files and no other, for as long as loading takes.

        Two of them are copied without what a model may not decide: which other files its tokenizer opens, and which
        attention runs, which may be a kernel of the hub, hence code, or one whose sums differ from run to run.

        Args:
            dtype: What quantised weights are computed in.
        """
        with tempfile.TemporaryDirectory(prefix="spice-model-") as directory:
            for file in self.files:
                there = Path(directory) / self.name_of(file)
                there.parent.mkdir(exist_ok=True)
                if file.name == TOKENIZER_CONFIG:
                    content = _without_paths(parsed(file.read_bytes(), file.name))
                    there.write_text(json.dumps(self._with_template(content)))
                elif file.name == CONFIG:
                    content = _without_kernels(parsed(file.read_bytes(), file.name))
                    quantised = settled(content, file.name, dtype)
                    if quantised is not None:
                        content["quantization_config"] = quantised
                    there.write_text(json.dumps(content))
                else:
                    there.symlink_to(file.resolve())
            yield Path(directory)

    def _with_template(self, content: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        """A tokenizer's configuration with the templates of `PROCESSOR_TEMPLATE`, if it has none."""
        beside = self.path / PROCESSOR_TEMPLATE
        if beside not in self.files or not isinstance(content, dict) or "chat_template" in content:
            return content
        found = parsed(beside.read_bytes(), beside.name)
        templates = found.get("chat_template") if isinstance(found, dict) else None
        if isinstance(templates, dict):
            templates = [{"name": name, "template": template} for name, template in templates.items()]
        return content if templates is None else {**content, "chat_template": templates}


Stamp = tuple[tuple[str, int, int, int], ...]


def stamp(path: Path) -> Stamp:
    """Of all in a directory: while it stays the same, so does the model.

    Raises:
        ModelError: Not a directory.
    """
    return _stamp_of(_entries(path))


def _stamp_of(files: Iterable[Path]) -> Stamp:
    """Name, inode, size and time of change of each."""
    stats = [(file.name, file.stat()) for file in files]
    return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def model_files(path: Path, limits: ModelLimits) -> ModelFiles:
    """The files that make the model in a directory.

    Raises:
        ModelError: Not a directory, a link that leaves it, weights other than safetensors, files that are too large or
            not what they should be, remote code, quantised weights that can't be loaded or that nothing says how to.
    """
    entries = _entries(path)
    root = path.resolve()
    for entry in entries:
        if entry.is_symlink() and not entry.resolve().is_relative_to(root):
            raise ModelError(
                f"model.uri: {path.name}/{entry.relative_to(path)} is a link out of the directory: "
                "copy the model with its links resolved (cp -rL)"
            )
    sizes = {entry.relative_to(path).as_posix(): entry.stat().st_size for entry in entries if entry.is_file()}
    listing = Listing(path.name, sizes)
    small = listing.small(limits)
    weights = listing.weights((path / INDEX).read_bytes() if INDEX in small else None, limits)
    quantised = None
    for name in small:
        if name.endswith(".json"):
            content = parsed((path / name).read_bytes(), f"{path.name}/{name}")
            if name in CODE_IN:
                _refuse_code(f"{path.name}/{name}", content)
            if name == CONFIG:
                quantised = settled(content, f"{path.name}/{name}", "float32")
    tensors = [tensor for name in weights for tensor in check_header(path / name, limits.json_max_bytes)]
    _refuse_scaled(path.name, tensors, quantised is not None)
    return ModelFiles(
        path, tuple(path / name for name in sorted([*small, *weights])), tuple(tensors), stored_as(quantised)
    )


def _refuse_scaled(name: str, tensors: Sequence[Tensor], is_quantised: bool) -> None:
    """See that no weight is of 8 bits where the configuration does not say how it is quantised."""
    scaled = next((tensor for tensor in tensors if tensor.scaled), None)
    if scaled is not None and not is_quantised:
        raise ModelError(
            f"model.uri: {name}/{CONFIG} has no quantization_config, and {scaled.name[:100]} is stored as "
            f"{scaled.dtype}, which would be read without its scale: copy the configuration that belongs to these "
            "weights, or use the original weights"
        )


def parsed(content: bytes, name: str) -> Any:  # noqa: ANN401 - whatever the file holds
    """A JSON file's content; ModelError, with the name, if it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"model.uri: {name} is not JSON ({type(error).__name__}): copy the model again") from error


def _entries(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        raise ModelError(f"model.uri: {path} is not a directory: give the local directory of a saved model")
    entries = sorted(path.iterdir(), key=lambda entry: entry.name)
    if (path / TEMPLATES).is_dir() and not (path / TEMPLATES).is_symlink():
        entries += sorted((path / TEMPLATES).glob("*.jinja"), key=lambda entry: entry.name)
    if len(entries) > MOST_FILES:
        raise ModelError(
            f"model.uri: {path} holds {len(entries):,} files, the limit is {MOST_FILES:,}: "
            "give the directory of one model"
        )
    return entries


def _without_paths(content: Any) -> Any:  # noqa: ANN401 - whatever the file holds
    """A tokenizer's configuration without the files that it names, which transformers would open wherever they are."""
    if not isinstance(content, dict):
        return content
    return {key: value for key, value in content.items() if not key.endswith("_file") and key != "init_inputs"}


def _without_kernels(content: Any) -> Any:  # noqa: ANN401 - whatever the file holds
    """A model's configuration that leaves the implementation of its parts to transformers, at any depth."""
    if isinstance(content, list):
        return [_without_kernels(value) for value in content]
    if not isinstance(content, dict):
        return content
    return {key: _without_kernels(value) for key, value in content.items() if not IMPLEMENTATION.fullmatch(key)}


def _refuse_code(name: str, content: Any) -> None:  # noqa: ANN401 - whatever the file holds
    """Refuse a configuration that names code to run, or weights packed in a way that can't be loaded."""
    waiting = [content]
    while waiting:
        settings = waiting.pop()
        if isinstance(settings, list):
            waiting.extend(settings)
        elif isinstance(settings, dict):
            waiting.extend(settings.values())
            if "auto_map" in settings:
                raise ModelError(
                    f"model.uri: {name} asks to run code that comes with the model (auto_map), "
                    "which is never done: choose a model whose architecture is part of transformers"
                )
