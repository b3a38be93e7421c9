"""Weights on MLX: shards, half precision, and MLX's own quantisation."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from checkpoints import write_files, write_steps, write_transformer
from mlx_models import DEVICE, MIXED, Opened, by_torch, open_mlx, order_of, with_config, with_weights
from safetensors.torch import load_file, save_file

from nearfar.core.errors import CheckpointError, EngineUnavailable, SettingsError
from nearfar.engines.mlx import kind
from nearfar.engines.mlx.quantization import QuantizationOptions, quantize_folder
from nearfar.engines.torch.engine import TorchEngine
from nearfar.models.reading.families import find_family
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.row import Row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nearfar.core.settings import Dtype


def known_prompts(name: str) -> dict[str, str]:
    known = find_family(name)
    assert known
    assert known.prompts
    return known.prompts


class TestWeights:
    def test_shards_are_put_together(self, bert: Path) -> None:
        whole = open_mlx(bert)
        rows = whole.rows(MIXED)
        expected = whole.engine.embed(rows)
        weights = load_file(bert / "model.safetensors")
        names = sorted(weights)
        shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
        for file, of in shards.items():
            save_file({name: weights[name] for name in of}, bert / file)
        index = {"metadata": {}, "weight_map": {name: file for file, of in shards.items() for name in of}}
        write_files(bert, {"model.safetensors.index.json": index})
        (bert / "model.safetensors").unlink()

        np.testing.assert_array_equal(expected, open_mlx(bert).engine.embed(rows))

    @pytest.mark.parametrize(("dtype", "floor"), [("float16", 0.9999), ("bfloat16", 0.995)])
    def test_half_precision_is_near_and_pools_in_float32(
        self, dtype: Dtype, floor: float, on_mlx: Callable[..., Opened]
    ) -> None:
        here = on_mlx("bert")
        rows = here.rows(MIXED)

        half = open_mlx(here.folder, dtype)
        vectors = half.engine.embed(rows)

        cosines = (vectors * here.engine.embed(rows)).sum(1)
        assert floor <= cosines.min() < 1
        assert dtype == half.engine.info.dtype
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)

    def test_the_automatic_precision_says_why(self, bert: Path) -> None:
        info = open_mlx(bert, "auto").engine.info

        if DEVICE == "cpu":
            assert ("float32", "auto: half precision is slower on a CPU") == (info.dtype, info.dtype_reason)
        else:
            assert "cosine to float32 min" in info.dtype_reason

    def test_a_weight_too_large_for_half_precision_is_not_called_damaged(self, bert: Path) -> None:
        with_weights(bert, lambda weights: weights["embeddings.LayerNorm.bias"].fill_(1e5))

        vectors = open_mlx(bert, "float16").engine.embed([Row([5, 6], None, 2, 0)])

        assert not np.isfinite(vectors).all()  # which the lane refuses to hand out


def unquantised(folder: Path, target: Path) -> Path:
    """Write the folder anew, with the rounded weights as the float32 numbers that they mean."""
    import mlx.core as mx

    shutil.copytree(folder, target)
    config = json.loads((folder / "config.json").read_text())
    way = config.pop("quantization")
    config.pop("quantization_config")
    arrays: Any = mx.load(str(folder / "model.safetensors"))
    for name in [name.removesuffix(".scales") for name in arrays if name.endswith(".scales")]:
        parts = [arrays.pop(f"{name}.{part}", None) for part in ("weight", "scales", "biases")]
        arrays[f"{name}.weight"] = mx.dequantize(*parts, **way).astype(mx.float32)
    mx.save_safetensors(str(target / "model.safetensors"), arrays, metadata={"format": "pt"})
    write_files(target, {"config.json": config})
    return target


class TestQuantized:
    @pytest.mark.parametrize("way", ["affine 8", "affine 6", "affine 4", "affine 2", "mxfp4 4", "mxfp8 8", "nvfp4 4"])
    @pytest.mark.parametrize("family", ["bert", "qwen3"])
    def test_a_quantised_folder_gives_what_torch_gives_with_the_rounded_weights(
        self, family: str, way: str, on_mlx: Callable[..., Opened], tmp_path: Path
    ) -> None:
        here = on_mlx(family)
        mode, _, bits = way.partition(" ")

        group = 16 if mode == "nvfp4" else 32
        made = quantize_folder(
            order_of(here.folder), tmp_path / "q", QuantizationOptions(bits=int(bits), mode=mode, group_size=group)
        )
        there = open_mlx(tmp_path / "q", "float32")

        rows = here.rows(MIXED)
        vectors = there.engine.embed(rows)
        rounded = by_torch(open_mlx(unquantised(tmp_path / "q", tmp_path / "rounded")), rows)
        assert (vectors * rounded).sum(1).min() >= 0.9999
        assert (vectors * here.engine.embed(rows)).sum(1).min() < 0.99999
        assert made.bytes_after < made.bytes_before * 0.6
        assert f"{bits} bit {mode}" == there.engine.info.dtype

    def test_single_layers_may_be_quantised_in_their_own_way(
        self, on_mlx: Callable[..., Opened], tmp_path: Path
    ) -> None:
        """As mixed recipes and DWQ folders have it: config.json names the layer."""
        import mlx.core as mx

        here = on_mlx("bert")
        quantize_folder(
            order_of(here.folder), tmp_path / "q", QuantizationOptions(bits=4, mode="affine", group_size=32)
        )
        name = "encoder.layer.0.attention.self.query"
        arrays: Any = mx.load(str(tmp_path / "q/model.safetensors"))
        original = mx.array(load_file(here.folder / "model.safetensors")[f"{name}.weight"].numpy())
        parts = zip(("weight", "scales", "biases"), mx.quantize(original, 32, 8), strict=True)
        arrays |= {f"{name}.{part}": array for part, array in parts}
        mx.save_safetensors(str(tmp_path / "q/model.safetensors"), arrays)
        config = json.loads((tmp_path / "q/config.json").read_text())
        config["quantization"][name] = {"group_size": 32, "bits": 8}
        write_files(tmp_path / "q", {"config.json": config})

        vectors = open_mlx(tmp_path / "q", "auto").engine.embed(here.rows(MIXED))

        assert np.isfinite(vectors).all()

    def test_other_engines_name_the_engine_it_is_for(self, on_mlx: Callable[..., Opened], tmp_path: Path) -> None:
        quantize_folder(
            order_of(on_mlx("bert").folder), tmp_path / "q", QuantizationOptions(bits=4, mode="affine", group_size=32)
        )

        with pytest.raises(EngineUnavailable, match="quantized for MLX; use --engine mlx"):
            TorchEngine(order_of(tmp_path / "q"))

    @pytest.mark.parametrize(
        ("way", "says"),
        [
            (QuantizationOptions(mode="mxfp4", bits=8), "mxfp4 has 4 bits, not 8"),
            (QuantizationOptions(group_size=48), "affine has 32 or 64 or 128 weights a group, not 48"),
            (QuantizationOptions(bits=7), "affine has 2 or 3 or 4 or 5 or 6 or 8 bits, not 7"),
            (QuantizationOptions(group_size=128), "none of its matrices can be split into groups of 128"),
        ],
    )
    def test_a_way_that_there_is_not_is_refused(
        self, way: QuantizationOptions, says: str, bert: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(SettingsError, match=says):
            quantize_folder(order_of(bert), tmp_path / "q", way)
        assert not (tmp_path / "q").exists()

    def test_what_is_there_or_quantised_already_is_refused(self, bert: Path, tmp_path: Path) -> None:
        order = order_of(bert)

        with pytest.raises(SettingsError, match="already exists"):
            quantize_folder(order, bert, QuantizationOptions())
        with_config(bert, quantization={"bits": 4, "group_size": 32})
        with pytest.raises(CheckpointError, match="already quantized"):
            quantize_folder(order, tmp_path / "q", QuantizationOptions())

    def test_the_folder_may_be_called_anything(self, tmp_path: Path) -> None:
        """What the model's name implies is written to its files: bge-m3 pools by its first token, e5 has prompts."""
        folder = write_transformer(tmp_path / "bare", "bert")
        for name, pooling, prompts in (
            ("BAAI/bge-m3", ("cls",), {}),
            ("mixedbread-ai/mxbai-embed-large-v1", ("cls",), known_prompts("mxbai-embed-large-v1")),
            ("intfloat/e5-base-v2", ("mean",), known_prompts("e5-base-v2")),
        ):
            recipe = read_recipe(folder, name=name)
            order = msgspec.structs.replace(order_of(folder), recipe=recipe)
            target = tmp_path / "any" / name.rpartition("/")[2][:2]

            quantize_folder(order, target, QuantizationOptions(bits=8, group_size=32), name)

            found = read_recipe(target)
            assert (pooling, prompts, recipe.normalize) == (found.pooling, found.prompts, found.normalize)

    @pytest.mark.parametrize("older", [{}, {"config_sentence_transformers.json": {"__version__": {}}}], ids=str)
    def test_so_it_may_where_only_prompts_and_the_limit_go_by_the_name(
        self, older: dict[str, object], tmp_path: Path
    ) -> None:
        """BAAI's own file is of a version that knew no prompts."""
        folder = write_files(write_transformer(tmp_path / "whole", "bert", max_position_embeddings=512), older)
        write_steps(folder, "cls")
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
        write_files(folder, {"tokenizer_config.json": tokenizer | {"model_max_length": 512}})
        for name, prompts, limit in (
            ("BAAI/bge-base-en-v1.5", known_prompts("bge-base-en-v1.5"), 512),
            ("sentence-transformers/all-MiniLM-L6-v2", {}, 256),
        ):
            recipe = read_recipe(folder, name=name)
            order = msgspec.structs.replace(order_of(folder), recipe=recipe)
            target = tmp_path / "any" / name.rpartition("/")[2][:2]

            quantize_folder(order, target, QuantizationOptions(bits=8, group_size=32), name)

            found = read_recipe(target)
            assert (("cls",), prompts, limit) == (found.pooling, found.prompts, found.max_tokens)

    def test_another_library_s_quantisation_is_refused(self, bert: Path) -> None:
        with_config(bert, quantization_config={"quant_method": "gptq", "bits": 4})

        with pytest.raises(EngineUnavailable, match="quantized with gptq aren't supported, only MLX's own"):
            kind.open(order_of(bert))
