"""The architectures that run on MLX: for each, its transformer's configuration, how it is called, and its head.

A configuration is held against what the transformer's file really computes. Whatever it would leave out, an activation
or a way to stretch positions, is refused: to ignore it would change every number without saying so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import mlx.core as mx
from mlx import nn
from msgspec import Struct

from nearfar.core.errors import EngineUnavailable
from nearfar.engines.mlx import heads
from nearfar.engines.mlx.attention import causal, fuse_attention, visible, within
from nearfar.engines.mlx.decoders import build_gemma, build_llama, build_qwen2, build_qwen3, run_decoder
from nearfar.engines.mlx.library import model_file
from nearfar.engines.mlx.options import Config, arguments, only, period, theta
from nearfar.models.recipe.sparse import Sparse

if TYPE_CHECKING:
    from nearfar.engines.base import OpenRequest


class Family(Struct, frozen=True, kw_only=True):
    """One architecture.

    ``build`` makes the transformer, with random weights, from config.json. ``run`` takes it, ids and mask (B, T) and
    types (B, T) or None, and gives hidden states (B, T, H); None for a mask means that nothing is padding. ``head``
    makes, for a number of labels, what turns hidden states and mask into logits, None where no such classifiers are
    known; ``speaker`` what turns them and the table of ``words`` into a sparse vector. ``adapt`` turns an array, given
    with its name, to how mlx wants it. ``shares_prefixes``: ``run`` also takes heads that rows share. ``masks``:
    it keeps every token from seeing what the mask leaves out, not only padding behind the text.
    """

    build: Callable[[Config], nn.Module]
    run: Callable[..., mx.array]
    head: Callable[[Config, int], nn.Module] | None = None
    speaker: Callable[[Config, Sparse], nn.Module] | None = None
    words: Callable[[nn.Module], nn.Module] = lambda trunk: trunk.embed_tokens
    adapt: Callable[[str, mx.array], mx.array] = lambda _, array: array
    shares_prefixes: bool = False
    masks: bool = False


def family_of(request: OpenRequest) -> Family:
    """Find the checkpoint's family. Raises EngineUnavailable, with those there are, where MLX doesn't have it."""
    recipe = request.recipe
    kind = "reranker" if recipe.task == "score" else "model"
    if recipe.sparse and recipe.sparse.method == "splade":
        kind = "SPLADE model"
    able = {
        name: one
        for name, one in FAMILIES.items()
        if {"reranker": one.head, "SPLADE model": one.speaker, "model": one}[kind]
    }
    unseen = recipe.multi_vector and recipe.multi_vector.expansion and not recipe.multi_vector.expansion.attended
    if unseen:
        kind, able = "ColBERT model with tokens that none sees", {name: one for name, one in able.items() if one.masks}
    if recipe.model_type not in able:
        raise EngineUnavailable(
            f"the MLX engine has no {recipe.model_type} {kind if recipe.model_type in FAMILIES else 'model'}, only "
            f"{', '.join(sorted(able))}; use --engine torch"
        )
    return able[recipe.model_type]


def _build_bert(config: Config) -> nn.Module:
    only(config, hidden_act="gelu", is_decoder=False)
    file = model_file("bert")
    return _without_pooler(file.Model(arguments(file.ModelArgs, config)))


def _build_roberta(config: Config) -> nn.Module:
    only(config, hidden_act="gelu", is_decoder=False)
    file = model_file("xlm_roberta")
    padding = config.get("pad_token_id")
    return _without_pooler(
        file.Model(arguments(file.ModelArgs, {**config, "pad_token_id": 1 if padding is None else padding}))
    )


def _without_pooler(model: nn.Module) -> nn.Module:
    """Leave out the pooler, which belongs to a head; let attention be computed in one go."""
    model.pop("pooler")
    for layer in model.encoder.layer:
        fuse_attention(layer.attention)
    return model


def _run_bert(model: nn.Module, ids: mx.array, mask: mx.array | None, types: mx.array | None) -> mx.array:
    found = model.encoder(model.embeddings(ids, types), visible(mask))
    hidden: mx.array = found[0] if isinstance(found, tuple) else found
    return hidden


def _build_modernbert(config: Config) -> nn.Module:
    only(config, hidden_activation="gelu", classifier_activation="gelu")
    file = model_file("modernbert")
    every = config.get("global_attn_every_n_layers") or period(config["layer_types"], "full_attention", first=0)
    thetas = {
        "global_rope_theta": theta(config, "full_attention", config.get("global_rope_theta") or 160_000.0),
        "local_rope_theta": theta(config, "sliding_attention", config.get("local_rope_theta") or 10_000.0),
    }
    model = file.ModernBertModel(arguments(file.ModelArgs, {**config, **thetas, "global_attn_every_n_layers": every}))
    for layer in model.layers:
        layer.mlp.act = nn.GELU()  # the file's own is an approximation, which costs the fourth digit
    return model


def _run_modernbert(model: nn.Module, ids: mx.array, mask: mx.array | None, _types: mx.array | None) -> mx.array:
    length = ids.shape[1]
    near = within(length, model.config.local_attention // 2, mask)
    everything = visible(mask)
    hidden = model.embeddings(ids)
    for layer in model.layers:
        hidden = layer(hidden, attention_mask=everything, sliding_window_mask=near)[0]
    last: mx.array = model.final_norm(hidden)
    return last


def _run_llama_bidirec(model: nn.Module, ids: mx.array, mask: mx.array | None, _types: mx.array | None) -> mx.array:
    last: mx.array = model(ids, visible(mask))
    return last


def _build_gemma3(config: Config) -> nn.Module:
    only(config, hidden_activation="gelu_pytorch_tanh", attention_bias=False)
    file = model_file("gemma3_text")
    pattern = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern")
    if layers := config.get("layer_types"):
        pattern = period(layers, "full_attention", first=None)
    window = int(config.get("sliding_window") or 0)
    bidirectional = bool(config.get("use_bidirectional_attention"))
    told = {
        "rope_theta": theta(config, "full_attention", 1_000_000.0),
        "rope_local_base_freq": theta(config, "sliding_attention", config.get("rope_local_base_freq") or 10_000.0)
        if "rope_parameters" in config
        else config.get("rope_local_base_freq") or 10_000.0,
        "sliding_window_pattern": pattern or 6,
    }
    model = file.Gemma3Model(arguments(file.ModelArgs, {**config, **told}))
    model.config.bidirectional = bidirectional
    model.config.reach = window // 2 if bidirectional else window - 1  # to either side, as transformers counts it
    return model


def _run_gemma3(model: nn.Module, ids: mx.array, mask: mx.array | None, _types: mx.array | None) -> mx.array:
    bidirectional, reach, length = model.config.bidirectional, model.config.reach, ids.shape[1]
    everything = visible(mask) if bidirectional else "causal"
    near = within(length, reach, mask) if bidirectional else causal(length, reach)
    hidden = model.embed_tokens(ids)
    hidden = hidden * mx.array(model.config.hidden_size**0.5, hidden.dtype)
    for layer in model.layers:
        hidden = layer(hidden, near if layer.self_attn.is_sliding else everything, None)
    last: mx.array = model.norm(hidden)
    return last


def _build_lfm2(config: Config) -> nn.Module:
    file = model_file("lfm2")
    told = {"rope_theta": theta(config, default=1_000_000.0), "block_dim": config.get("hidden_size")}
    return file.Lfm2Model(arguments(file.ModelArgs, {**told, **config}))


def _adapt_lfm2(name: str, array: mx.array) -> mx.array:
    """Turn a convolution's weights from torch's (H, 1, width) to mlx's (H, width, 1)."""
    return array.transpose(0, 2, 1) if name.endswith("conv.conv.weight") and array.shape[1] == 1 else array


def _run_lfm2(model: nn.Module, ids: mx.array, _mask: mx.array | None, _types: mx.array | None) -> mx.array:
    last: mx.array = model(ids)
    return last


def _decoder(build: Callable[[Config], nn.Module]) -> Family:
    return Family(build=build, run=run_decoder, head=heads.LastTokenHead, shares_prefixes=True)


FAMILIES: dict[str, Family] = {
    "bert": Family(
        build=_build_bert,
        run=_run_bert,
        head=heads.BertHead,
        speaker=heads.BertWords,
        words=lambda trunk: trunk.embeddings.word_embeddings,
        masks=True,
    ),
    "xlm-roberta": Family(build=_build_roberta, run=_run_bert, head=heads.RobertaHead, masks=True),
    "roberta": Family(build=_build_roberta, run=_run_bert, head=heads.RobertaHead, masks=True),
    "camembert": Family(build=_build_roberta, run=_run_bert, head=heads.RobertaHead, masks=True),
    "modernbert": Family(build=_build_modernbert, run=_run_modernbert, head=heads.ModernBertHead, masks=True),
    "qwen2": _decoder(build_qwen2),
    "qwen3": _decoder(build_qwen3),
    "gemma": _decoder(build_gemma),
    "llama": _decoder(build_llama),
    "llama_bidirec": Family(build=build_llama, run=_run_llama_bidirec),
    "gemma3_text": Family(build=_build_gemma3, run=_run_gemma3),
    "lfm2": Family(build=_build_lfm2, run=_run_lfm2, adapt=_adapt_lfm2),
}
