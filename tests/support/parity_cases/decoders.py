"""Decoders: each family, the ways to scale rotary positions, and each option of those that MLX runs too."""

from __future__ import annotations

from typing import Any

from parity_cases.parts import GONE, Checkpoint, checkpoint, config_json, sbert, tokenizer_config

_SIX = {"original_max_position_embeddings": 64}
_LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    **_SIX,
}
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
_YARN: dict[str, Any] = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
_LONG = {
    "rope_type": "longrope",
    "factor": 8.0,
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 4.0, 6.0, 8.0],
    "original_max_position_embeddings": 128,
}
_WITH_TYPES = ["input_ids", "token_type_ids", "attention_mask"]
_MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}


def _decoder(family: str, *changes: Any, steps: str = "last", limit: int | None = 1024, **options: Any) -> Checkpoint:
    return checkpoint(family, *changes, steps=steps, limit=limit, **options)


def _rope(**scaling: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 10000.0} | scaling}


def _old_rope(theta: float = 10000.0, **scaling: Any) -> Any:
    """Return an edit to what transformers 4 wrote."""
    return config_json(rope_parameters=GONE, rope_theta=theta, rope_scaling=scaling or None)


# Each family by itself, and its options off their defaults: name → family, what differs.
_TABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "bloom": ("bloom", {"steps": "wmean"}),
    "bloom_left": ("bloom", {"steps": "mean", "tokenizer": "start-left"}),
    "codegen": ("codegen", {}),
    "cohere": ("cohere", {"logit_scale": 0.1}),
    "cohere2": ("cohere2", {}),
    "diffllama": ("diffllama", {"head_dim": 8}),
    "eurobert": ("eurobert", {"steps": "mean"}),
    "exaone4": ("exaone4", {}),
    "falcon": ("falcon", {}),
    "falcon_alibi": ("falcon", {"alibi": True, "new_decoder_architecture": False}),
    "gemma": ("gemma", {}),
    "gemma_bidirectional": ("gemma", {"steps": "mean", "use_bidirectional_attention": True}),
    "gemma2": ("gemma2", {}),
    "gemma2_bidirectional": ("gemma2", {"steps": "mean", "use_bidirectional_attention": True}),
    "gemma3": ("gemma3_text", {"query_pre_attn_scalar": 16}),
    "gemma3_bidirectional": ("gemma3_text", {"steps": "mean", "use_bidirectional_attention": True}),
    "gemma3_bidirectional_of_2_layers": (
        "gemma3_text",
        {"steps": "mean", "use_bidirectional_attention": True, "num_hidden_layers": 2}
        | {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 512},
    ),
    "glm": ("glm", {"head_dim": 8, "partial_rotary_factor": 0.5}),
    "gpt2_wmean": ("gpt2", {"steps": "wmean", "scale_attn_by_inverse_layer_idx": True}),
    "gpt2_with_types": ("gpt2", {"tokenizer": "start", "edits": [tokenizer_config(model_input_names=_WITH_TYPES)]}),
    "gpt_bigcode": ("gpt_bigcode", {}),
    "gpt_neo": ("gpt_neo", {}),
    "gpt_neox": ("gpt_neox", {}),
    "gpt_oss": ("gpt_oss", {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
    "gptj": ("gptj", {}),
    "granite": (
        "granite",
        {"embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.5, "logits_scaling": 2.0},
    ),
    "lfm2": ("lfm2", {}),
    "lfm2_mean": ("lfm2", {"steps": "mean", "block_auto_adjust_ff_dim": True, "conv_bias": True}),
    "llama": ("llama", {}),
    "llama_mlp_bias": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama_over_positions": ("llama", {"max_position_embeddings": 64, "edits": [sbert(max_seq_length=256)]}),
    "qwen3_over_positions": ("qwen3", {"max_position_embeddings": 64, "edits": [sbert(max_seq_length=256)]}),
    "mamba": ("mamba", {"limit": 300}),
    "ministral": ("ministral", {}),
    "mistral_window": ("mistral", {"sliding_window": 16, "head_dim": 8}),
    "mixtral": ("mixtral", {}),
    "modernbert_decoder": ("modernbert-decoder", {}),
    "mpt": (
        "mpt",
        {"base": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 1024}, "tokenizer": "start"},
    ),
    "nemotron": ("nemotron", {}),
    "olmo": ("olmo", {"clip_qkv": 0.5}),
    "olmo2": ("olmo2", {}),
    "opt_wmean_left": ("opt", {"steps": "wmean", "tokenizer": "start-left"}),
    "phi": ("phi", {"partial_rotary_factor": 0.5}),
    "qwen2": ("qwen2", {}),
    "qwen2_left": ("qwen2", {"tokenizer": "start-left"}),
    "qwen2_moe": ("qwen2_moe", {}),
    "qwen2_window_off": ("qwen2", {"use_sliding_window": False, "sliding_window": 16}),
    "qwen3_left": ("qwen3", {"tokenizer": "start-left", "head_dim": 16}),
    "qwen3_window": (
        "qwen3",
        {"head_dim": 8, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    ),
    "qwen3_window_by_layer": ("qwen3", {"head_dim": 8, "use_sliding_window": True, **_MIXED}),
    "rwkv": ("rwkv", {"limit": 256}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0], "head_dim": 8}),
    "stablelm": ("stablelm", {"use_qkv_bias": True, "partial_rotary_factor": 0.25}),
    "starcoder2": ("starcoder2", {"sliding_window": 16}),
    "xglm": ("xglm", {"max_position_embeddings": 1024}),
    # rotary positions
    "llama_dynamic": (
        "llama",
        {"max_position_embeddings": 64, "edits": [sbert(max_seq_length=1024)], **_rope(**_DYNAMIC)},
    ),
    "llama_dynamic_from_16": (
        "llama",
        {"max_position_embeddings": 16, "edits": [sbert(max_seq_length=256)], **_rope(**_DYNAMIC)},
    ),
    "llama_dynamic_mean": ("llama", {"steps": "mean", **_rope(**_DYNAMIC, **_SIX)}),
    "llama_linear": ("llama", _rope(rope_type="linear", factor=4.0)),
    "llama_llama3": ("llama", _rope(**_LLAMA3)),
    "llama_longrope": ("llama", {"head_dim": 8, **_rope(**_LONG)}),
    "llama_yarn": ("llama", _rope(**_YARN)),
    "llama_old_llama3": ("llama", {"head_dim": 8, "edits": [_old_rope(**_LLAMA3)]}),
    "llama_old_linear_beside_new": (
        "llama",
        {"head_dim": 8, "edits": [config_json(rope_theta=500.0, rope_scaling={"type": "linear", "factor": 4.0})]},
    ),
    "llama_linear_of_two_names": ("llama", {"head_dim": 8, **_rope(rope_type="linear", type="default", factor=3.0)}),
    "qwen3_old_yarn": ("qwen3", {"head_dim": 8, "edits": [_old_rope(**_YARN)]}),
    # keys that the config lacks
    "gemma_no_head_dim": ("gemma", {"head_dim": 256, "edits": [config_json(head_dim=GONE)]}),
    "llama_no_head_dim": ("llama", {"edits": [config_json(head_dim=GONE)]}),
    "qwen3_no_head_dim": ("qwen3", {"head_dim": 128, "edits": [config_json(head_dim=GONE)]}),
    # of one family
    "gemma_gelu": ("gemma", {"head_dim": 16, "hidden_activation": "gelu"}),
    "gemma3_softcap": ("gemma3_text", {"attn_logit_softcapping": 5.0}),
    "gemma3_silu": ("gemma3_text", {"hidden_activation": "silu"}),
    "gemma3_attention_bias": ("gemma3_text", {"attention_bias": True}),
    "gemma3_eps": ("gemma3_text", {"rms_norm_eps": 0.05}),
    "gemma3_kv1": ("gemma3_text", {"num_key_value_heads": 1}),
    "gemma3_odd_window": ("gemma3_text", {"steps": "mean", "use_bidirectional_attention": True, "sliding_window": 33}),
    "gemma3_window_unstated": ("gemma3_text", {"edits": [config_json(sliding_window=GONE)]}),
    "gemma3_bidirectional_not_causal": (
        "gemma3_text",
        {"steps": "mean", "use_bidirectional_attention": True, "is_causal": False},
    ),
    "gemma3_scalar": ("gemma3_text", {"query_pre_attn_scalar": 64}),
    "lfm2_adjusted": (
        "lfm2",
        {"block_auto_adjust_ff_dim": True, "block_ffn_dim_multiplier": 0.7, "block_multiple_of": 8},
    ),
    "lfm2_attention_only": ("lfm2", {"layer_types": ["full_attention"] * 3}),
    "lfm2_conv_only": ("lfm2", {"layer_types": ["conv"] * 3}),
    "lfm2_eps": ("lfm2", {"norm_eps": 0.05}),
    "lfm2_kernel_5": ("lfm2", {"conv_L_cache": 5}),
    "lfm2_theta": ("lfm2", {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}}),
}
CASES = {name: _decoder(family, **options) for name, (family, options) in _TABLE.items()}
_GEMMA3_OLD: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("", {}, {"sliding_window_pattern": 6}),
    ("_linear", {"rope_type": "linear", "factor": 8.0}, {"sliding_window_pattern": 6}),
    ("_pattern_3", {}, {"sliding_window_pattern": 3, "_sliding_window_pattern": 3}),
)
CASES |= {
    f"gemma3_old{name}": _decoder(
        "gemma3_text",
        _old_rope(5000.0, **scaling),
        config_json(layer_types=GONE, rope_local_base_freq=300.0, **pattern),
    )
    for name, scaling, pattern in _GEMMA3_OLD
}
CASES |= {
    f"{family}_not_causal": _decoder(family, steps="mean", is_causal=False)
    for family in ("llama", "mistral", "qwen2", "qwen3")
}
# The families that MLX runs, with heads wider than a part of the hidden size where they may be.
WIDTHS: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 16},
    "llama": {"head_dim": 16},
    "qwen2": {},
    "qwen3": {"head_dim": 16},
}
# What each of the families that MLX runs is tried with, beside itself.
_OPTIONS: dict[str, dict[str, Any]] = {
    "bidirectional": {"steps": "mean", "use_bidirectional_attention": True},
    "eps": {"rms_norm_eps": 0.05},
    "gelu": {"hidden_act": "gelu"},
    "kv1": {"num_key_value_heads": 1},
    "kv4": {"num_key_value_heads": 4},
    "mean": {"steps": "mean"},
    "old_linear": {"edits": [_old_rope(300.0, type="linear", factor=4.0)]},
    "old_theta": {"edits": [config_json(rope_parameters=GONE, rope_theta=200.0)]},
    "partial": _rope(rope_type="default", partial_rotary_factor=0.5),
    "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 200.0}},
    "attention_bias": {"attention_bias": True},
}
CASES |= {
    f"{family}_{name}": _decoder(family, **WIDTHS[family] | options)
    for family in WIDTHS
    for name, options in _OPTIONS.items()
    if (family, name) not in {("qwen2", "attention_bias"), ("gemma", "bidirectional")}
}
# Without modules.json, the folder leaves the pooling open; by the manual, decoders are pooled by the last token.
_OPEN = (
    "bloom cohere2 exaone4 falcon gemma3_text glm gpt_bigcode gpt_neo gpt_neox gptj granite lfm2 mamba ministral "
    "nemotron olmo2 olmo3 phi qwen2_moe smollm3 stablelm starcoder2"
)
CASES |= {
    f"{family}_without_steps": checkpoint(family, head="causal", limit=1024, steps=None, kind="default")
    for family in _OPEN.split()
}
