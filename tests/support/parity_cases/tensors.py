"""Weights: their names, precisions and files; and quantized formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from checkpoints import write_files

from parity_cases.parts import Checkpoint, Edit, checkpoint, config_json, dense, pooling, rewrite, weights

Tensors = dict[str, Any]


def _renamed(old: str, new: str, *edits: Edit) -> Checkpoint:
    """Return BERT with ``new`` in place of ``old`` in the names of its weights; an empty ``old`` is a prefix."""

    def rename(name: str) -> str:
        return name.replace(old, new) if old else new + name

    return checkpoint("bert", weights(lambda found: {rename(name): tensor for name, tensor in found.items()}), *edits)


def _bert(change: Any, *edits: Edit) -> Checkpoint:
    return checkpoint("bert", weights(change), *edits)


def _llama(*edits: Edit, **options: Any) -> Checkpoint:
    return checkpoint("llama", *edits, steps="last", limit=1024, head_dim=8, **options)


def _cast(dtype: str) -> Any:
    def cast(found: Tensors) -> Tensors:
        import torch

        return {name: tensor.to(getattr(torch, dtype)) for name, tensor in found.items()}

    return cast


def _ones(*shape: int) -> Any:
    import torch

    return torch.ones(*shape)


def _write_shards(place: Path, change: Any = lambda tensor: tensor, *, keep: bool = False) -> None:
    """Split the weights into two files with an index; with ``keep``, model.safetensors stays beside them."""
    from safetensors.torch import load_file, save_file

    found = load_file(place / "model.safetensors")
    names = sorted(found)
    placed: dict[str, str] = {}
    for part, chosen in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-0000{part}-of-00002.safetensors"
        save_file({name: change(found[name]) for name in chosen}, place / file, {"format": "pt"})
        placed |= dict.fromkeys(chosen, file)
    write_files(place, {"model.safetensors.index.json": {"metadata": {}, "weight_map": placed}})
    if not keep:
        (place / "model.safetensors").unlink()


def _quantized(suffix: str, of: str) -> Any:
    """Return a change to 8-bit weights with their scales beside them, ``suffix`` in place of ``of`` in their names."""

    def change(found: Tensors) -> Tensors:
        import torch

        changed = {}
        for name, tensor in found.items():
            changed[name] = tensor
            if name.endswith("proj.weight"):
                scale = tensor.abs().amax(1, keepdim=True) / 100
                small = tensor / scale
                changed[name] = small.to(torch.float8_e4m3fn) if of == "fp8" else small.round().to(torch.int8)
                changed[name.removesuffix("weight") + suffix] = scale[:, 0] * (1 if of == "fp8" else 127)
        return changed

    return change


def _adapted(found: Tensors) -> Tensors:
    """Leave the names of an adapter in the weights."""
    renamed = {
        name.replace("query.weight", "query.base_layer.weight").replace("query.bias", "query.base_layer.bias"): tensor
        for name, tensor in found.items()
    }
    return renamed | {"encoder.layer.0.attention.self.query.lora_A.default.weight": _ones(4, 32)}


def _deeper(found: Tensors) -> Tensors:
    third = {
        name.replace("layer.0.", "layer.2."): tensor.clone() for name, tensor in found.items() if "layer.0." in name
    }
    return found | third


def _with_head(name: str) -> Edit:
    """Return an edit that adds a head's weights, which BERT alone doesn't use."""
    return weights(lambda found: found | {f"{name}.weight": _ones(2, 32)})


CASES: dict[str, Checkpoint] = {
    "weights_16_bits": checkpoint("bert", weights(_cast("float16")), config_json(dtype="float16")),
    "weights_bfloat16": checkpoint("bert", weights(_cast("bfloat16")), config_json(dtype="bfloat16")),
    "weights_rounded_by_config": checkpoint("bert", config_json(dtype="bfloat16"), steps=[pooling("mean"), dense(24)]),
    "weights_rounded_by_config_rank": checkpoint("llama", config_json(dtype="bfloat16"), labels=1, limit=1024),
    "weights_dtype_auto": checkpoint("bert", config_json(dtype="auto")),
    "weights_dtype_by_part": checkpoint("bert", config_json(dtype={"": "bfloat16"})),
    "weights_64_bits": checkpoint("bert", weights(_cast("float64"))),
    "weights_infinity_in_config": checkpoint(
        "bert", rewrite("config.json", lambda found: found | {"time_step_limit": [0.0, float("inf")]})
    ),
    "weights_run_in_chunks": checkpoint("bert", config_json(chunk_size_feed_forward=5)),
    "weights_dense_without_prefix": checkpoint(
        "bert",
        weights(
            lambda found: {name.removeprefix("linear."): tensor for name, tensor in found.items()},
            "2_Dense/model.safetensors",
        ),
        steps=[pooling("mean"), dense(24)],
    ),
    "weights_adapter_inside": _bert(_adapted),
    "weights_bias_missing": _bert(
        lambda found: {name: tensor for name, tensor in found.items() if not name.endswith("1.output.dense.bias")}
    ),
    "weights_extra": _bert(lambda found: found | {"extra.weight": _ones(3), "embeddings.position_ids": _ones(1, 512)}),
    "weights_extra_layer": _bert(_deeper),
    "weights_fp8_unmarked": _llama(weights(_quantized("weight_scale", "fp8"))),
    "weights_int8_unmarked": _llama(weights(_quantized("SCB", "int8"))),
    "weights_llama_bias_unused": _llama(config_json(attention_bias=False), attention_bias=True),
    "weights_of_language_model": _llama(head="causal", tie_word_embeddings=True),
    "weights_prefix_bert": _renamed("", "bert.", config_json(architectures=["BertForMaskedLM"])),
    "weights_prefix_model": _renamed("", "model."),
    "weights_prefix_module": _renamed("", "module."),
    "weights_prefix_st": _renamed("", "0.auto_model."),
    "weights_twice": _bert(
        lambda found: (
            {f"bert.{name}": tensor for name, tensor in found.items()}
            | {name: tensor / 2 for name, tensor in found.items()}
        )
    ),
    "weights_shards": checkpoint("bert", _write_shards),
    "weights_shards_beside": checkpoint(
        "bert", lambda place: _write_shards(place, lambda tensor: tensor * 0 + 1, keep=True)
    ),
    "weights_tensorflow_names": _bert(
        lambda found: {
            name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): tensor
            for name, tensor in found.items()
        }
    ),
}
CASES |= {
    f"weights_head_{name}": checkpoint("bert", _with_head(name), steps=None)
    for name in ("aggregation_classifier", "out_proj", "qa_outputs")
}
_TENSOR = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True, "dynamic": False}
_METHODS: dict[str, dict[str, object]] = {
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True},
    "bitsandbytes_4": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "bitsandbytes_8": {"quant_method": "bitsandbytes", "load_in_8bit": True},
    "compressed_tensors": {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": _TENSOR}},
    },
    "empty": {},
    "fp8": {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False},
    "mxfp4": {"quant_method": "mxfp4"},
    "no_method": {"bits": 4, "group_size": 64},
    "quanto": {"quant_method": "quanto", "weights": "int8"},
    "torchao": {"quant_method": "torchao", "quant_type": "int8_weight_only"},
    "unknown": {"quant_method": "mymethod", "bits": 3},
}
CASES |= {f"quantized_{name}": _llama(config_json(quantization_config=config)) for name, config in _METHODS.items()}
