"""How each architecture's transformer is built from config.json, and how it is called.

``build_*`` return a transformer with random weights. ``run_*`` take it, ids and mask (B, T) and types (B, T) or None,
and return hidden states (B, T, H); None as the mask means no padding. Options that a model file doesn't implement are
refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
from mlx import nn

from nearfar.engines.mlx.attention import FusedAttention, PrefixCache, causal_mask, full_mask, window_mask
from nearfar.engines.mlx.upstream import (
    Config,
    Unsupported,
    build_model,
    layer_period,
    require,
    require_full_attention,
    rope_theta,
)

# BERT and RoBERTa


def build_bert(config: Config, file: str = "bert") -> nn.Module:
    """Build the encoder with fused attention, without the pooler, which belongs to a head."""
    require(config, hidden_act="gelu", is_decoder=False, is_causal=False)
    model = build_model(file, "Model", config)
    model.pop("pooler")
    for layer in model.encoder.layer:
        layer.attention.self = FusedAttention(layer.attention.self)
    return model


def build_roberta(config: Config) -> nn.Module:
    """Build the encoder of RoBERTa, XLM-RoBERTa or CamemBERT, without the pooler."""
    padding = config.get("pad_token_id")
    return build_bert({**config, "pad_token_id": 1 if padding is None else padding}, "xlm_roberta")


def run_bert(model: nn.Module, ids: mx.array, mask: mx.array | None, types: mx.array | None) -> mx.array:
    """Run BERT's or RoBERTa's encoder."""
    output = model.encoder(model.embeddings(ids, types), full_mask(mask))
    hidden: mx.array = output[0] if isinstance(output, tuple) else output
    return hidden


# ModernBERT


def build_modernbert(config: Config) -> nn.Module:
    """Build ModernBERT."""
    require(config, hidden_activation="gelu", classifier_activation="gelu", is_causal=False)
    options = {
        "global_attn_every_n_layers": config.get("global_attn_every_n_layers") or 3,
        "global_rope_theta": rope_theta(config, "full_attention", config.get("global_rope_theta") or 160_000.0),
        "local_rope_theta": rope_theta(config, "sliding_attention", config.get("local_rope_theta") or 10_000.0),
    }
    model = build_model("modernbert", "ModernBertModel", {**config, **options})
    types = config.get("layer_types")
    model.config.global_attn_every_n_layers = 2  # for a single layer: number 0 is global, number 1 is not
    for at, layer in enumerate(model.layers):
        layer.mlp.act = nn.GELU()  # the file's own is an approximation that changes the fourth digit
        if types:
            layer.attn = type(layer.attn)(model.config, 0 if types[at] == "full_attention" else 1)
    return model


def run_modernbert(model: nn.Module, ids: mx.array, mask: mx.array | None, _types: mx.array | None) -> mx.array:
    """Run ModernBERT, with our masks."""
    window = window_mask(ids.shape[1], model.config.local_attention // 2, mask)
    full = full_mask(mask)
    hidden = model.embeddings(ids)
    for layer in model.layers:
        hidden = layer(hidden, attention_mask=full, sliding_window_mask=window)[0]
    last: mx.array = model.final_norm(hidden)
    return last


# Causal decoders, made of mlx-lm's layers. Padding on the right is never attended to.


def run_decoder(
    model: nn.Module,
    ids: mx.array,
    _mask: mx.array | None,
    _types: mx.array | None,
    caches: Sequence[PrefixCache] | None = None,
) -> mx.array:
    """Run a causal decoder on ids that continue the prefix in ``caches``, one per layer, or that fill them."""
    hidden = model.embed_tokens(ids) * getattr(model, "scale", 1)
    for at, layer in enumerate(model.layers):
        hidden = layer(hidden, "causal", caches[at] if caches else None)
    last: mx.array = model.norm(hidden)
    return last


def build_qwen3(config: Config) -> nn.Module:
    """Build Qwen3."""
    require(config, hidden_act="silu", use_sliding_window=False, is_causal=True, attention_bias=False)
    require_full_attention(config)
    return build_model("qwen3", "Qwen3Model", {**config, "rope_theta": rope_theta(config)}, "mlx_lm")


def build_qwen2(config: Config) -> nn.Module:
    """Build Qwen2."""
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    require(config, hidden_act="silu", use_sliding_window=False, is_causal=True, head_dim=head_dim)
    require_full_attention(config)
    return build_model("qwen2", "Qwen2Model", {**config, "rope_theta": rope_theta(config)}, "mlx_lm")


def build_gemma(config: Config) -> nn.Module:
    """Build the first Gemma."""
    require(config, attention_bias=False, is_causal=True)
    require(config, use_bidirectional_attention=False, final_logit_softcapping=None)
    require_full_attention(config)
    if config.get("hidden_act", "gelu") not in {"gelu", "gelu_pytorch_tanh"}:  # Gemma computes the second for both
        raise Unsupported(f"hidden_act = {config['hidden_act']}")
    model = build_model("gemma", "GemmaModel", {**config, "rope_theta": rope_theta(config)}, "mlx_lm")
    model.scale = float(config["hidden_size"] ** 0.5)
    for layer in model.layers:
        layer.mlp = _TanhMlp(layer.mlp)
    return model


class _TanhMlp(nn.Module):
    """Gemma's MLP with the approximate GELU that it was trained with; the file has the exact one."""

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = plain.gate_proj, plain.up_proj, plain.down_proj

    def __call__(self, hidden: mx.array) -> mx.array:
        product: mx.array = self.down_proj(nn.gelu_approx(self.gate_proj(hidden)) * self.up_proj(hidden))
        return product


def build_llama(config: Config) -> nn.Module:
    """Build Llama, for causal or bidirectional attention."""
    require(config, hidden_act="silu", is_causal=True)
    require_full_attention(config)
    rope: Config = config.get("rope_scaling") or config.get("rope_parameters") or {}  # the older name wins there
    scaling = rope.get("rope_type", rope.get("type", "default"))
    if scaling not in {"default", "linear", "llama3"}:
        raise Unsupported(f"{scaling} rotary positions")
    theta = float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    rope = {**rope, "type": scaling, "rope_type": scaling}  # mlx-lm prefers the older name
    options = {"rope_theta": theta, "rope_scaling": None if scaling == "default" else rope}
    return build_model("llama_bidirec", "LlamaBidirectionalModel", {**config, **options})


# Gemma 3, causal or bidirectional, and LFM2

_GEMMA3_WINDOW = 4096  # transformers' default


def build_gemma3(config: Config) -> nn.Module:
    """Build Gemma 3's text model."""
    require(config, hidden_activation="gelu_pytorch_tanh", attention_bias=False, is_causal=True)
    pattern = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern")
    if layers := config.get("layer_types"):
        pattern = layer_period(layers, "full_attention")
    local_theta = config.get("rope_local_base_freq") or 10_000.0
    if "rope_parameters" in config:
        local_theta = rope_theta(config, "sliding_attention", local_theta)
    options = {
        "rope_theta": rope_theta(config, "full_attention", 1_000_000.0),
        "rope_local_base_freq": local_theta,
        "sliding_window_pattern": pattern or 6,
    }
    model = build_model("gemma3_text", "Gemma3Model", {**config, **options})
    window = config.get("sliding_window", _GEMMA3_WINDOW)
    if not window:
        raise Unsupported(f"sliding_window = {window}")
    model.config.bidirectional = bool(config.get("use_bidirectional_attention"))
    model.config.reach = window // 2 if model.config.bidirectional else window - 1  # to a side, as in transformers
    return model


def run_gemma3(model: nn.Module, ids: mx.array, mask: mx.array | None, _types: mx.array | None) -> mx.array:
    """Run Gemma 3, with our masks."""
    reach, length = model.config.reach, ids.shape[1]
    full: mx.array | str | None = "causal"
    window: mx.array | str | None = causal_mask(length, reach)
    if model.config.bidirectional:
        full, window = full_mask(mask), window_mask(length, reach, mask)
    hidden = model.embed_tokens(ids)
    hidden = hidden * mx.array(model.config.hidden_size**0.5, hidden.dtype)
    for layer in model.layers:
        hidden = layer(hidden, window if layer.self_attn.is_sliding else full, None)
    last: mx.array = model.norm(hidden)
    return last


def build_lfm2(config: Config) -> nn.Module:
    """Build LFM2, of attention, of convolutions, or of both."""
    require(config, is_causal=True)
    layers = config["num_hidden_layers"]
    attending = config.get("full_attn_idxs")
    if types := config.get("layer_types"):
        attending = [at for at, kind in enumerate(types) if kind == "full_attention"]
    options = {
        "rope_theta": rope_theta(config, default=1_000_000.0),
        "block_dim": config["hidden_size"],
        # The model file needs one; none of the layers has this index.
        "full_attn_idxs": list(range(layers)) if attending is None else attending or [layers],
    }
    return build_model("lfm2", "Lfm2Model", {**config, **options})


def run_lfm2(model: nn.Module, ids: mx.array, _mask: mx.array | None, _types: mx.array | None) -> mx.array:
    """Run LFM2. Padding on the right reaches no token: both kinds of layer are causal."""
    hidden = model.embed_tokens(ids)
    for layer in model.layers:
        hidden = layer(hidden, "causal" if layer.is_attention_layer else None, None)
    last: mx.array = model.embedding_norm(hidden)
    return last


def adapt_lfm2(name: str, array: mx.array) -> mx.array:
    """Transpose a convolution's weights from torch's (H, 1, width) to mlx's (H, width, 1)."""
    return array.transpose(0, 2, 1) if name.endswith("conv.conv.weight") and array.shape[1] == 1 else array
