"""Decoders that see all of what came before, made of mlx-lm's layers; and the heads that rows of theirs share.

Padding stands on the right, where they don't look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from mlx import nn

from nearfar.engines.mlx.library import model_file
from nearfar.engines.mlx.options import Config, Unsupported, arguments, only, only_full_attention, theta

if TYPE_CHECKING:
    from collections.abc import Sequence


class Head:
    """One layer's keys and values of what all rows begin with, in the place where mlx-lm's layers take a cache.

    The first call keeps its own; those after it get them laid before each of their rows.
    """

    def __init__(self) -> None:
        self.offset = 0
        self._kept: tuple[mx.array, mx.array] | None = None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Take (n, heads, L, d) of both, and give what they may be attended with: (n, heads, offset + L, d)."""
        if self._kept is None:
            self._kept = keys, values
            self.offset = keys.shape[2]
            return keys, values
        before = (mx.broadcast_to(of, (keys.shape[0], *of.shape[1:])) for of in self._kept)
        whole = [mx.concatenate([*pair], axis=2) for pair in zip(before, (keys, values), strict=True)]
        return whole[0], whole[1]


def run_decoder(
    model: nn.Module,
    ids: mx.array,
    _mask: mx.array | None,
    _types: mx.array | None,
    heads: Sequence[Head] | None = None,
) -> mx.array:
    """Give the hidden states of ids that go on from ``heads``, one a layer, or begin with them."""
    hidden = model.embed_tokens(ids) * getattr(model, "scale", 1)
    for at, layer in enumerate(model.layers):
        hidden = layer(hidden, "causal", heads[at] if heads else None)
    last: mx.array = model.norm(hidden)
    return last


def build_qwen3(config: Config) -> nn.Module:
    """Make Qwen3's transformer."""
    only(config, hidden_act="silu", use_sliding_window=False, is_causal=True, attention_bias=False)
    only_full_attention(config)
    file = model_file("qwen3", "mlx_lm")
    usual = {"head_dim": config["hidden_size"] // config["num_attention_heads"], "tie_word_embeddings": True}
    return file.Qwen3Model(arguments(file.ModelArgs, {**usual, **config, "rope_theta": theta(config)}))


def build_qwen2(config: Config) -> nn.Module:
    """Make Qwen2's transformer."""
    width = config["hidden_size"] // config["num_attention_heads"]
    only(config, hidden_act="silu", use_sliding_window=False, is_causal=True, head_dim=width)
    only_full_attention(config)
    file = model_file("qwen2", "mlx_lm")
    return file.Qwen2Model(arguments(file.ModelArgs, {**config, "rope_theta": theta(config)}))


def build_gemma(config: Config) -> nn.Module:
    """Make the first Gemma's transformer."""
    only(config, attention_bias=False, is_causal=True, use_bidirectional_attention=False, final_logit_softcapping=None)
    only_full_attention(config)
    if config.get("hidden_act", "gelu") not in {"gelu", "gelu_pytorch_tanh"}:  # to Gemma both are the same
        raise Unsupported(f"hidden_act = {config['hidden_act']}")
    file = model_file("gemma", "mlx_lm")
    model = file.GemmaModel(arguments(file.ModelArgs, {**config, "rope_theta": theta(config)}))
    model.scale = float(config["hidden_size"] ** 0.5)
    for layer in model.layers:
        layer.mlp = _TanhMlp(layer.mlp)
    return model


class _TanhMlp(nn.Module):
    """Gemma's, with the approximation that it was trained with; the file has the exact GELU."""

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = plain.gate_proj, plain.up_proj, plain.down_proj

    def __call__(self, hidden: mx.array) -> mx.array:
        """Give (B, T, H)."""
        found: mx.array = self.down_proj(nn.gelu_approx(self.gate_proj(hidden)) * self.up_proj(hidden))
        return found


def build_llama(config: Config) -> nn.Module:
    """Make Llama's transformer."""
    only(config, hidden_act="silu", is_causal=True)
    only_full_attention(config)
    file = model_file("llama_bidirec")
    positions: Config = config.get("rope_parameters") or config.get("rope_scaling") or {}
    stretch = positions.get("rope_type", positions.get("type", "default"))
    if stretch not in {"default", "linear", "llama3"}:
        raise Unsupported(f"{stretch} rotary positions")
    base = positions.get("rope_theta") or config.get("rope_theta") or 10_000.0
    told = {"rope_theta": float(base), "rope_scaling": None if stretch == "default" else positions}
    return file.LlamaBidirectionalModel(arguments(file.ModelArgs, {**config, **told}))
