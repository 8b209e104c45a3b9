"""A tiny configuration of every causal language model that the installed transformers knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

VOCABULARY = 97
LONGEST = 128

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "embedding_size": 32,
    "intermediate_size": 48,
    "ffn_dim": 48,
    "n_inner": 48,
    "ffn_hidden_size": 48,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "moe_shared_expert_intermediate_size": 16,
    "num_hidden_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "num_layers": 2,
    "decoder_layers": 2,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_d_state": 8,
    "mamba_d_ssm": 64,
    "mamba_expand": 2,
    "state_size": 8,
    "max_position_embeddings": LONGEST,
    "n_positions": LONGEST,
    "max_seq_len": LONGEST,
    "sliding_window": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
    "max_window_layers": 2,
}
"""By field: what a configuration is given where it has a field of the name."""

MLA: dict[str, Any] = {"num_key_value_heads": 4, "head_dim": 8}
"""Attention with latent keys: as many heads of keys as of queries."""
LAYERS: dict[str, Any] = {"layer_types": ["full_attention", "full_attention"]}
SPECIAL: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        (
            "axk1",
            "axk2",
            "deepseek_v2",
            "deepseek_v3",
            "deepseek_v32",
            "glm4_moe_lite",
            "glm_moe_dsa",
            "minicpm3",
            "youtu",
        ),
        MLA,
    ),
    "codegen": {"rotary_dim": 4},
    "gptj": {"rotary_dim": 4},
    "cohere_compass_text": LAYERS
    | {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}},
    "dots1": {"n_shared_experts": 1},
    "dots3_note": {"num_key_value_heads": 4, "mlp_layer_types": ["dense", "sparse"], "per_layer_config": None}
    | {"layer_types": ["sliding_attention", "sliding_attention"], "index_topk": 4, "index_head_dim": 8},
    "gemma3n_text": {"num_kv_shared_layers": 1, "intermediate_size": [48] * 3, "num_hidden_layers": 3}
    | {"layer_types": ["full_attention"] * 3, "activation_sparsity_pattern": [0.5, 0.0, 0.0], "laurel_rank": 4}
    | {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8},
    "gemma4_text": LAYERS
    | {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8, "per_layer_config": None},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 4, "window_size": 6},
    "kimi_linear": {"num_key_value_heads": 4, "mlp_layer_types": ["dense", "sparse"], "linear_head_dim": 8}
    | {"layer_types": ["linear_attention", "full_attention"], "linear_num_heads": 4, "num_experts_per_token": 2},
    "lfm2_moe": {"num_dense_layers": 1, "layer_types": ["conv", "full_attention"]},
    "longcat_flash": MLA | {"ffn_hidden_size": 48, "moe_topk": 2, "zero_expert_num": 2, "expert_ffn_hidden_size": 16},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 1, "state_size": 8, "chunk_size": 8},
    "roc_bert": {"pronunciation_vocab_size": 11, "shape_vocab_size": 11, "pronunciation_embed_dim": 8}
    | {"shape_embed_dim": 8},
    "cpmant": {"dim_head": 8, "dim_ff": 48, "prompt_length": 2, "prompt_types": 2, "num_attention_heads": 4},
    "reformer": {"is_decoder": True, "attention_head_size": 8, "attn_layers": ["local", "lsh"], "feed_forward_size": 48}
    | {"axial_pos_shape": [8, 16], "axial_pos_embds_dim": [8, 24], "local_attn_chunk_length": 4}
    | {"lsh_attn_chunk_length": 4, "num_buckets": 2},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "num_hidden_layers": 4,
        "attention_hidden_size": 64,
    }
    | {"attention_head_dim": 16, "mamba_dt_rank": 4, "num_key_value_heads": 4, "n_mamba_heads": 2},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"], "hybrid_layer_ids": [1], "mamba_headdim": 8}
    | {"attention_hidden_size": 64, "attention_head_dim": 16, "num_key_value_heads": 4, "n_mamba_heads": 8}
    | {"mamba_ngroups": 1, "adapter_rank": 4, "kv_channels": 8, "num_query_groups": 4, "chunk_size": 8},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16, "layer_types": ["hybrid", "hybrid"]},
}
SPECIAL |= {
    "gemma3n": SPECIAL["gemma3n_text"],
    "gemma4": SPECIAL["gemma4_text"],
    "dots3_note_text": SPECIAL["dots3_note"],
}
"""By type: what differs."""


def causal_types() -> list[str]:
    """All types of the mapping, sorted."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(kind: str) -> PreTrainedConfig:
    """The configuration of a type, its text part made tiny."""
    plain = AutoConfig.for_model(kind)
    text = plain.get_text_config()
    fields = set(text.to_dict()) | set(getattr(text, "attribute_map", {}))
    known = {name: value for name, value in SMALL.items() if name in fields}
    mapped = getattr(text, "attribute_map", {})
    known = {name: value for name, value in known.items() if mapped.get(name) not in known}
    special = SPECIAL.get(kind, {})
    wanted = {**known, **special}
    return type(text)(**{name: value for name, value in wanted.items() if value is not ...})
