"""A Llama of a few thousand numbers as a GGUF file, written as llama.cpp's converter does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quantize

if TYPE_CHECKING:
    from pathlib import Path

LAYERS, WIDTH, INNER, HEADS, KV_HEADS = 2, 64, 96, 4, 2
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_letters() -> list[str]:
    """The letters by which byte-level BPE writes the 256 bytes."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))]


def write_tiny_gguf(path: Path, kind: GGMLQuantizationType = GGMLQuantizationType.Q8_0, seed: int = 0) -> Path:
    """Write the file, its matrices quantised as `kind`."""
    tokens = ["<|im_start|>", "<|im_end|>", *byte_letters(), "th", "the"]
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *[1] * (len(tokens) - 2)])
    writer.add_token_merges(["t h", "th e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(CHATML)
    random = np.random.default_rng(seed)

    def matrix(name: str, rows: int, columns: int) -> None:
        values = random.normal(0, 0.1, (rows, columns)).astype(np.float32)
        writer.add_tensor(f"{name}.weight", quantize(values, kind), raw_dtype=kind)

    def norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, dtype=np.float32))

    matrix("token_embd", len(tokens), WIDTH)
    head = WIDTH // HEADS
    for block in range(LAYERS):
        matrix(f"blk.{block}.attn_q", WIDTH, WIDTH)
        matrix(f"blk.{block}.attn_k", KV_HEADS * head, WIDTH)
        matrix(f"blk.{block}.attn_v", KV_HEADS * head, WIDTH)
        matrix(f"blk.{block}.attn_output", WIDTH, WIDTH)
        matrix(f"blk.{block}.ffn_gate", INNER, WIDTH)
        matrix(f"blk.{block}.ffn_up", INNER, WIDTH)
        matrix(f"blk.{block}.ffn_down", WIDTH, INNER)
        norm(f"blk.{block}.attn_norm")
        norm(f"blk.{block}.ffn_norm")
    norm("output_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
