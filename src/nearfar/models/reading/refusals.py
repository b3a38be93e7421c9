"""Refuses folders that can't be run, would run code, or would silently lose a part of the model.

Each error is one sentence: the file, what is wrong with it, and the way out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nearfar.core.errors import CheckpointError
from nearfar.models.files.config import ModelConfig
from nearfar.models.files.json_files import read_json
from nearfar.models.files.safetensors import PICKLES, find_layer_tensors, tensor_shapes, weight_files
from nearfar.models.reading.families import find_family
from nearfar.models.reading.modules import KNOWN_PACKAGES, TRANSFORMERS, Module, unsupported_steps
from nearfar.models.reading.transformer_options import OFFSET_POSITIONS
from nearfar.models.recipe.recipe import ENCODERS, Recipe

# transformers uses absolute positions for these and ignores config.json; jina-embeddings-v2 needs others (ALiBi).
_ABSOLUTE = frozenset(("albert", "bert", "camembert", "electra", "ernie", "roberta", "xlm-roberta", "xlm-roberta-xl"))
# Decoders for which transformers honors use_bidirectional_attention.
_BIDIRECTIONAL = ("gemma", "t5gemma", "llama_bidirec")
# Remote code that is now part of transformers (llama_bidirec: of mlx-embeddings). For any other, transformers' class of
# the same name computes other numbers: LLM2Vec's llama attends to the whole text.
_NATIVE = frozenset(("eurobert", "gte", "jina_embeddings_v3", "lfm2", "modernbert", "nomic_bert", "llama_bidirec"))
# nomic_bert's options: the name in its remote code, the name that transformers' class reads, and that class's default.
_NOMIC: tuple[tuple[str, str, object], ...] = (
    ("activation_function", "hidden_act", "swiglu"),
    ("n_embd", "hidden_size", 768),
    ("n_head", "num_attention_heads", 12),
    ("n_inner", "intermediate_size", 3072),
    ("n_layer", "num_hidden_layers", 12),
    ("layer_norm_epsilon", "layer_norm_eps", 1e-12),
    ("rotary_emb_base", "rope_parameters", 1000),
    ("rotary_scaling_factor", "rope_parameters", None),
    ("rotary_emb_fraction", "", 1.0),
    ("rotary_emb_scale_base", "", None),
    *((name, "", False) for name in ("rotary_emb_interleaved", "causal", "mlp_fc1_bias", "mlp_fc2_bias")),
    *((name, "", False) for name in ("qkv_proj_bias", "parallel_block", "prenorm", "use_rms_norm")),
)
_OTHER_FORMATS = {
    "*.gguf": "GGUF",
    "*.onnx": "ONNX",
    "onnx/*.onnx": "ONNX",
    "*.tflite": "TFLite",
    "*.xml": "OpenVINO",
    "*.ckpt": "PyTorch Lightning",
}
_ADAPTERS = ("adapter_config.json", "*/adapter_config.json", "adapters/*/adapter_config.json")
_MODEL_DEPTHS = ("*", "*/*", "*/*/*")  # a hub's cache has models in snapshots/COMMIT
_WEIGHTS = "*.safetensors"


def refuse_no_model(folder: Path) -> None:
    """Raise CheckpointError for a folder without config.json, naming what it seems to be instead."""
    if (folder / "config.json").is_file():
        return
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        base = read_json(adapter, dict[str, Any]).get("base_model_name_or_path") or "its base model"
        raise CheckpointError(
            f"{adapter}: the folder contains only an adapter; merge it into {base} with peft, and serve the result"
        )
    no_model = "has no config.json, so it isn't a transformers or sentence-transformers model"
    if others := _other_formats(folder):
        raise CheckpointError(f"{folder}: {no_model}, but one for {others}; use the original with its *.safetensors")
    configs = [file for depth in _MODEL_DEPTHS for file in folder.glob(f"{depth}/config.json")]
    inside = sorted(file.parent.relative_to(folder).as_posix() for file in configs if _any(file.parent, _WEIGHTS))
    if inside:
        named = ", ".join(inside[:3]) + (" …" if len(inside) > 3 else "")  # noqa: PLR2004 — three examples
        raise CheckpointError(f"{folder}: {no_model}; use one of the models in it: {named}")
    raise CheckpointError(f"{folder}: {no_model}; use a folder that has one, or a model on the hub")


def refuse_unsupported(folder: Path, inner: Path, config: ModelConfig, name: str) -> None:
    """Raise CheckpointError for a model that no engine here can run as it was trained.

    ``folder`` has the steps, ``inner`` the transformer; they are usually the same.
    """
    _refuse_remote_code(inner, config, name)
    _refuse_adapters(folder)
    file = inner / "config.json"
    if config.model_type == "model2vec" or "StaticModel" in (config.architectures or ()):
        raise CheckpointError(
            f"{file}: is a table of word vectors without a transformer (model2vec), which isn't supported; use the "
            "model that it was distilled from, or run it with model2vec"
        )
    if config.model_type == "canine":
        raise CheckpointError(
            f"{file}: canine has no vocabulary, it hashes characters, which isn't supported; use a model that has a "
            "tokenizer.json"
        )
    _refuse_images_and_sounds(file, config)
    by_encoder = config.model_type in ENCODERS and (folder / "modules.json").is_file()
    has_decoder = config.model_type in ENCODERS if config.is_encoder_decoder is None else config.is_encoder_decoder
    if has_decoder and not by_encoder:
        raise CheckpointError(
            f"{file}: {config.model_type} is an encoder with a decoder, which isn't supported; use a model that is "
            "only one of them, or a T5 with the modules.json of an embedding model"
        )
    if config.model_type == "nomic_bert":
        _refuse_nomic_variants(file)
    if config.model_type in OFFSET_POSITIONS and read_json(file, dict[str, Any]).get("pad_token_id", 1) is None:
        raise CheckpointError(
            f"{file}: pad_token_id is null, but {config.model_type} counts positions from it; set it to the padding "
            "token's id"
        )
    _refuse_lost_options(file, config, name)


def _refuse_images_and_sounds(file: Path, config: ModelConfig) -> None:
    raw = read_json(file, dict[str, Any])
    reads_texts = config.vocab_size is not None or bool({"text_config", "vlm_config"} & raw.keys())
    kinds = {
        "vision_config": "images",
        "vlm_config": "images",
        "image_size": "images",
        "num_mel_bins": "sounds",
        "audio_config": "sounds",
    }
    if found := next((kind for key, kind in kinds.items() if key in raw), None):
        if reads_texts and config.hidden_size:
            return
        raise CheckpointError(
            f"{file}: {config.model_type} is a model of {'texts and ' if reads_texts else ''}{found}, which isn't "
            "supported; use a model of texts alone"
        )


def refuse_pickles(folder: Path) -> None:
    """Raise CheckpointError for a folder without safetensors weights."""
    if _any(folder, _WEIGHTS):
        return
    # OpenVINO's weights end in .bin, too.
    if any(file.suffix in PICKLES and not file.with_suffix(".xml").exists() for file in folder.iterdir()):
        raise CheckpointError(f"{folder}: has only pickled weights, which can run code; convert them: nearfar unpickle")
    if others := _other_formats(folder):
        raise CheckpointError(f"{folder}: has weights only for {others}; use the original with its *.safetensors")
    raise CheckpointError(f"{folder}: has no *.safetensors; download the model again with its weights")


def refuse_damaged(folder: Path, recipe: Recipe) -> None:
    """Raise CheckpointError, naming the file, for damaged or missing weights of the model or its layers."""
    for file in weight_files(folder / recipe.subfolder):
        tensor_shapes(file)
    for layer in recipe.weighted_layers:
        find_layer_tensors(layer)


def _refuse_remote_code(folder: Path, config: ModelConfig, name: str) -> None:
    code = next((str(name) for kind, name in (config.auto_map or {}).items() if kind.startswith("AutoModel")), None)
    if code is None or config.model_type in _NATIVE:
        return
    family = find_family(name, config.name or "")
    way_out = (
        f"use {family.native_checkpoint}, the same model for transformers' own code"
        if family and family.native_checkpoint
        else "use a model that transformers has code for, or remove auto_map if transformers' own "
        f"{config.model_type} gives the same numbers"
    )
    raise CheckpointError(f"{folder / 'config.json'}: needs remote code ({code}), which is never run; {way_out}")


def refuse_other_models(folder: Path, modules: list[Module]) -> None:
    """Raise CheckpointError for steps that are remote code, or that don't begin with a transformer."""
    file = folder / "modules.json"
    custom = next((module.type for module in modules if not module.type.startswith(KNOWN_PACKAGES)), None)
    if custom:
        raise CheckpointError(
            f"{file}: {custom} is remote code, which is never run; use a version with sentence-transformers' own steps"
        )
    if modules and modules[0].kind not in TRANSFORMERS:
        raise unsupported_steps(file, modules, "Transformer, Pooling, Dense, LayerNorm, Normalize")


def _refuse_adapters(folder: Path) -> None:
    """Raise CheckpointError for adapters in the folder: transformers ignores them unless peft is installed."""
    file = next((file for pattern in _ADAPTERS for file in sorted(folder.glob(pattern))), None)
    if file is None:
        return
    raise CheckpointError(
        f"{file}: adapters aren't applied, and the model gives other numbers without; merge one into the weights with "
        "peft, or remove the adapters to serve the model without"
    )


def _refuse_nomic_variants(file: Path) -> None:
    config = read_json(file, dict[str, Any])
    if config.get("moe_every_n_layers") or (config.get("num_experts") or 0) > 1:
        raise CheckpointError(
            f"{file}: is a mixture of experts, which transformers' nomic_bert doesn't support; use "
            "nomic-ai/nomic-embed-text-v1.5, or another multilingual model"
        )
    for old, new, value in _NOMIC:
        if old in config and new not in config and config[old] != value:
            raise CheckpointError(
                f"{file}: {old} = {config[old]!r} is ignored by transformers' nomic_bert, which uses {value!r}; use a "
                "version saved by transformers"
            )


def _refuse_lost_options(file: Path, config: ModelConfig, name: str) -> None:
    """Raise CheckpointError for options that transformers 5 silently ignores, giving other numbers."""
    kind = config.model_type
    other = "use another model, since transformers ignores it and would give other numbers"
    if kind in _ABSOLUTE and (config.position_embedding_type or "absolute") != "absolute":
        raise CheckpointError(
            f"{file}: position_embedding_type = {config.position_embedding_type} isn't supported; {other}"
        )
    if config.use_bidirectional_attention and not kind.startswith(_BIDIRECTIONAL):
        raise CheckpointError(f"{file}: use_bidirectional_attention isn't supported for {kind}; {other}")
    family = find_family(name)
    if family and family.bidirectional and config.is_causal is not False:
        raise CheckpointError(
            f"{file}: {family.source} was trained without a causal mask, which the file doesn't state; add "
            '"is_causal": false to it'
        )


def _other_formats(folder: Path) -> str:
    return " and ".join(dict.fromkeys(name for pattern, name in _OTHER_FORMATS.items() if _any(folder, pattern)))


def _any(folder: Path, *patterns: str) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in patterns)
