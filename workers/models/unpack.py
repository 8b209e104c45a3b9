"""The process that unpacks a GGUF file: `python -m workers.models.unpack FILE TARGET DTYPE MEMORY SECONDS`.

It reads what somebody has made with a parser that trusts it, so it has no credentials, no more memory and no more time
than the file may need, and its crash is not the worker's. It says on its last line of output what went wrong.
"""

from __future__ import annotations

import resource
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from workers.models.errors import in_brief


def unpack(file: Path, target: Path, dtype: str) -> None:
    """Write the model of a GGUF file as a saved model, its tensors in `dtype`."""
    import torch  # noqa: PLC0415 - the limits are to hold from the first import on
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415
    from transformers.utils.quantization_config import GgufConfig  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="spice-gguf-") as directory:  # nothing that lies beside it is read
        (Path(directory) / file.name).symlink_to(file.resolve())
        load: Any = AutoModelForCausalLM.from_pretrained
        model = load(
            directory,
            gguf_file=file.name,
            dtype=getattr(torch, dtype),
            quantization_config=GgufConfig(dequantize=True),
            local_files_only=True,
            trust_remote_code=False,
        )
        tokenizer = AutoTokenizer.from_pretrained(
            directory, gguf_file=file.name, local_files_only=True, trust_remote_code=False
        )
    model.hf_quantizer = None  # it is unpacked, and saves as any other
    model.config.quantization_config = None
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def main(file: str, target: str, dtype: str, memory: str, seconds: str) -> None:
    """Limit this process, and unpack."""
    resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))
    signal.alarm(int(seconds))  # also when the worker that waits for it is gone
    try:
        unpack(Path(file), Path(target), dtype)
    except Exception as error:  # noqa: BLE001 - transformers raises whatever a broken file brings about
        sys.exit(in_brief(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
