"""What a folder may hold that can't be run, would run code, or would be left out without anybody noticing.

Each refusal is one sentence: the file, what is wrong with it, and the way out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nearfar.core.errors import CheckpointError
from nearfar.models.files.json_files import read_json, read_optional_json
from nearfar.models.files.safetensors import tensor_shapes, weight_files
from nearfar.models.reading.families import find_family
from nearfar.models.reading.modules import MAKERS

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.models.files.config import ModelConfig
    from nearfar.models.recipe.recipe import Recipe

# Families whose positions transformers takes for absolute, whatever config.json says: jina-embeddings-v2's aren't.
_ABSOLUTE = frozenset(("albert", "bert", "camembert", "electra", "ernie", "roberta", "xlm-roberta", "xlm-roberta-xl"))
# Decoders that transformers lets look ahead where config.json says use_bidirectional_attention.
_LOOK_AHEAD = ("gemma", "t5gemma", "llama_bidirec")
# The kinds whose own code transformers, or for the last one mlx-embeddings, has taken over. Of any other that asks for
# code of its own, transformers' class of the same name gives other numbers: LLM2Vec's llama sees the whole text.
_TAKEN_OVER = frozenset(("eurobert", "gte", "jina_embeddings_v3", "lfm2", "modernbert", "nomic_bert", "llama_bidirec"))
# nomic_bert's options as its first code spells them, the names that transformers' class reads instead, and what the
# class does where it finds none of those.
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
    ("rotary_emb_interleaved", "", False),
    ("rotary_emb_scale_base", "", None),
    ("causal", "", False),
    ("mlp_fc1_bias", "", False),
    ("mlp_fc2_bias", "", False),
    ("qkv_proj_bias", "", False),
    ("parallel_block", "", False),
    ("prenorm", "", False),
    ("use_rms_norm", "", False),
)
_OTHERS = {"*.gguf": "GGUF", "*.onnx": "ONNX", "onnx/*.onnx": "ONNX", "*.tflite": "TFLite", "*.xml": "OpenVINO"}
_ADAPTERS = ("adapter_config.json", "*/adapter_config.json", "adapters/*/adapter_config.json")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def refuse_no_model(folder: Path) -> None:
    """Refuse a folder without config.json, and say what it seems to be instead."""
    if (folder / "config.json").is_file():
        return
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        base = read_json(adapter, dict[str, Any]).get("base_model_name_or_path") or "its base model"
        raise CheckpointError(
            f"{adapter}: the folder is only an adapter; merge it into {base} with peft, and serve what comes of it"
        )
    no_model = "has no config.json, so it isn't a transformers or sentence-transformers model"
    if others := _other_formats(folder):
        raise CheckpointError(f"{folder}: {no_model}, but one for {others}; take the original with its *.safetensors")
    inside = sorted(file.parent.relative_to(folder).as_posix() for file in _below(folder) if _is_model(file.parent))
    if inside:
        named = ", ".join(inside[:3]) + (" …" if len(inside) > 3 else "")  # noqa: PLR2004 — enough to see what is meant
        raise CheckpointError(f"{folder}: {no_model}; name one of the models in it: {named}")
    raise CheckpointError(f"{folder}: {no_model}; name the folder that has one, or a model on the hub")


def refuse_unfit(folder: Path, config: ModelConfig, name: str) -> None:
    """Refuse what config.json, or a file beside it, says that nothing here can run as it was trained."""
    _refuse_remote_code(folder, config, name)
    _refuse_foreign_steps(folder)
    _refuse_adapters(folder)
    file = folder / "config.json"
    if config.is_encoder_decoder:
        raise CheckpointError(
            f"{file}: {config.model_type} is an encoder with a decoder, which isn't supported; take a model that is "
            "only one of the two"
        )
    if config.model_type == "nomic_bert":
        _refuse_other_nomic(file)
    _refuse_ignored(file, config, name)


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder without weights, or whose only ones are pickled or for another program."""
    if any(folder.glob("*.safetensors")):
        return
    if any(file for pattern in _PICKLES for file in folder.glob(pattern)):
        raise CheckpointError(
            f"{folder}: has only pickled weights, which can run code; write them anew: nearfar unpickle"
        )
    if others := _other_formats(folder):
        raise CheckpointError(f"{folder}: has weights only for {others}; take the original with its *.safetensors")
    raise CheckpointError(f"{folder}: has no *.safetensors; download the model again with its weights")


def refuse_damaged(folder: Path, recipe: Recipe) -> None:
    """Refuse weights that aren't whole: the model's, all its shards, and its Dense layers'.

    Raises CheckpointError, naming the very file.
    """
    for file in [*weight_files(folder), *(dense.file for dense in recipe.linear_layers)]:
        tensor_shapes(file)


def _refuse_remote_code(folder: Path, config: ModelConfig, name: str) -> None:
    asked = next((str(code) for kind, code in (config.auto_map or {}).items() if kind.startswith("AutoModel")), None)
    if asked is None or config.model_type in _TAKEN_OVER:
        return
    known = find_family(name, config.name or "")
    way = (
        f"serve {known.native_checkpoint}, the same model for transformers' own code"
        if known and known.native_checkpoint
        else "serve a model that transformers has code for, or take auto_map out if its own "
        f"{config.model_type} is known to give the same numbers"
    )
    raise CheckpointError(
        f"{folder / 'config.json'}: asks for code of the model's own ({asked}), which is never run; {way}"
    )


def _refuse_foreign_steps(folder: Path) -> None:
    file = folder / "modules.json"
    steps = [str(step.get("type")) for step in read_optional_json(file, list[dict[str, Any]])]
    foreign = next((step for step in steps if not step.startswith(MAKERS)), None)
    if foreign:
        raise CheckpointError(
            f"{file}: {foreign} is code of the model's own, which is never run; serve a version made of "
            "sentence-transformers' own steps"
        )


def _refuse_adapters(folder: Path) -> None:
    """Refuse adapters beside or below the model: transformers leaves them out unless peft happens to be installed."""
    file = next((file for pattern in _ADAPTERS for file in sorted(folder.glob(pattern))), None)
    if file is None:
        return
    raise CheckpointError(
        f"{file}: an adapter, without which the model gives other numbers; merge the one that is wanted into the "
        "weights with peft, or take the adapters away to serve the model without any"
    )


def _refuse_other_nomic(file: Path) -> None:
    said = read_json(file, dict[str, Any])
    if said.get("moe_every_n_layers") or (said.get("num_experts") or 0) > 1:
        raise CheckpointError(
            f"{file}: a mixture of experts, for which transformers' nomic_bert has no code; serve "
            "nomic-ai/nomic-embed-text-v1.5, or another model for many languages"
        )
    for old, new, value in _NOMIC:
        if old in said and new not in said and said[old] != value:
            raise CheckpointError(
                f"{file}: {old} = {said[old]!r} isn't what transformers' nomic_bert computes ({value!r}); serve a "
                "version saved by transformers"
            )


def _refuse_ignored(file: Path, config: ModelConfig, name: str) -> None:
    """Refuse what the model was trained with and transformers 5 leaves out without a word, giving other numbers."""
    kind = config.model_type
    other = "take another model, as the numbers would be others without it"
    if kind in _ABSOLUTE and (config.position_embedding_type or "absolute") != "absolute":
        raise CheckpointError(
            f"{file}: position_embedding_type = {config.position_embedding_type} isn't supported; {other}"
        )
    if config.use_bidirectional_attention and not kind.startswith(_LOOK_AHEAD):
        raise CheckpointError(f"{file}: use_bidirectional_attention isn't supported for {kind}; {other}")
    known = find_family(name)
    if known and known.bidirectional and config.is_causal is not False:
        raise CheckpointError(
            f"{file}: {known.source} sees the whole text at once, which the file doesn't say; put "
            '"is_causal": false into it'
        )


def _other_formats(folder: Path) -> str:
    return " and ".join(dict.fromkeys(name for pattern, name in _OTHERS.items() if _any(folder, pattern)))


def _any(folder: Path, pattern: str) -> bool:
    return next(folder.glob(pattern), None) is not None


def _below(folder: Path) -> list[Path]:
    """List the config.json files one, two or three floors down: a hub's cache keeps models in snapshots/COMMIT."""
    return [file for depth in ("*", "*/*", "*/*/*") for file in folder.glob(f"{depth}/config.json")]


def _is_model(folder: Path) -> bool:
    return _any(folder, "*.safetensors")
