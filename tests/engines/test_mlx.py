"""The MLX engine gives transformers' numbers, or refuses; and a batch that doesn't fit is made smaller."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import pytest
import torch
from checkpoints import HIDDEN, POSITIONS, lay, write_transformer
from conftest import until
from safetensors.torch import load_file, save_file
from texts import varied_texts
from transformers import AutoModel, AutoModelForSequenceClassification

from nearfar.engines import EngineOrder, RowsTooLarge, installed_engines
from nearfar.engines.mlx import kind
from nearfar.engines.mlx.memory import in_parts
from nearfar.engines.mlx.quantizing import quantize_folder
from nearfar.engines.torch.engine import TorchEngine
from nearfar.errors import CheckpointError, ConfigError, EngineUnavailable, NotReady
from nearfar.models.modules import POOLINGS
from nearfar.models.recipe import read_recipe
from nearfar.models.tokens import Row, Tokens
from nearfar.serving.lane import Lane, LaneLimits
from nearfar.serving.observe import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from nearfar.config import Device, Dtype
    from nearfar.engines.mlx.engine import MlxEngine
    from nearfar.types import FloatArray

DEVICE: Device = "mps" if os.environ.get("NEARFAR_TEST_DEVICE") == "mps" else "cpu"
QUERY = "a question? the fox"
EMBEDDERS = ("bert", "roberta", "camembert", "xlm-roberta", "modernbert", "qwen3", "llama", "gemma3_text", "lfm2")
RERANKERS = ("bert", "roberta", "xlm-roberta", "modernbert", "qwen3", "llama")
TEXTS = varied_texts(90)
MIXED = [*TEXTS[:20], "x", "the fox", *TEXTS[25:60]]  # from one token to far more than the limit


class Opened(NamedTuple):
    folder: Path
    tokens: Tokens
    engine: MlxEngine

    def rows(self, texts: Sequence[str]) -> list[Row]:
        return [row for row in self.tokens.encode(texts) if row.ids]

    def pairs(self, texts: Sequence[str]) -> list[Row]:
        return self.tokens.encode_pairs(QUERY, texts, None)


def order_of(folder: Path, dtype: Dtype = "float32") -> EngineOrder:
    recipe = read_recipe(folder)
    probes = Tokens(folder, recipe).probes()
    return EngineOrder(folder=folder, recipe=recipe, device=DEVICE, dtype=dtype, probes=probes)


def open_mlx(folder: Path, dtype: Dtype = "float32") -> Opened:
    order = order_of(folder, dtype)
    engine: Any = kind.open(order)
    return Opened(folder, Tokens(folder, order.recipe), engine)


def by_torch(opened: Opened, rows: Sequence[Row]) -> FloatArray:
    order = order_of(opened.folder)
    engine = TorchEngine(msgspec.structs.replace(order, device="cpu"))
    return engine.embed(rows) if engine.info.dim else engine.score(rows)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int | None], Opened]:
    there: dict[tuple[str, int | None], Opened] = {}

    def give(family: str, labels: int | None = None) -> Opened:
        if (family, labels) not in there:
            folder = write_transformer(tmp_path_factory.mktemp(family), family, labels=labels)
            there[family, labels] = open_mlx(folder)
        return there[family, labels]

    return give


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return write_transformer(tmp_path / "bert", "bert")


class TestNumbers:
    @pytest.mark.parametrize("family", EMBEDDERS)
    def test_hidden_states_pooled_are_transformers(self, family: str, opened: Callable[..., Opened]) -> None:
        """One row at a time through transformers itself, with nothing of ours but the pooling of one row."""
        here = opened(family)
        rows = here.rows(MIXED)
        model = AutoModel.from_pretrained(here.folder, dtype=torch.float32).eval()
        expected = []
        for row in rows:
            with torch.no_grad():
                hidden = model(input_ids=torch.tensor([row.ids])).last_hidden_state[0].numpy()
            expected.append(hidden[-1] if "lasttoken" in read_recipe(here.folder).pooling else hidden.mean(0))

        vectors = here.engine.embed(rows)

        cosines = (vectors * expected).sum(1) / np.linalg.norm(expected, axis=1)
        assert cosines.min() >= 0.99999
        assert vectors.std(axis=0).max() > 0.05  # these tiny models do tell texts apart
        assert POSITIONS == max(len(row.ids) for row in rows)

    @pytest.mark.parametrize("family", RERANKERS)
    def test_logits_are_transformers(self, family: str, opened: Callable[..., Opened]) -> None:
        here = opened(family, 1)
        rows = here.pairs(MIXED)
        model = AutoModelForSequenceClassification.from_pretrained(here.folder, dtype=torch.float32).eval()
        expected = []
        for row in rows:
            types = {} if row.type_ids is None else {"token_type_ids": torch.tensor([row.type_ids])}
            with torch.no_grad():
                expected.append(model(input_ids=torch.tensor([row.ids]), **types).logits.item())

        logits = here.engine.score(rows)

        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)
        assert logits.std() > 0.01

    @pytest.mark.parametrize("family", EMBEDDERS)
    def test_neighbours_and_the_size_of_the_batch_change_nothing(
        self, family: str, opened: Callable[..., Opened]
    ) -> None:
        here = opened(family)
        rows = here.rows(MIXED)

        alone = np.concatenate([here.engine.embed([row]) for row in rows])

        for size in (2, 5, 13, len(rows)):
            np.testing.assert_allclose(here.engine.embed(rows[:size]), alone[:size], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("family", RERANKERS)
    def test_neighbours_change_no_logit(self, family: str, opened: Callable[..., Opened]) -> None:
        here = opened(family, 1)
        rows = here.pairs(MIXED)

        alone = np.concatenate([here.engine.score([row]) for row in rows])

        np.testing.assert_allclose(here.engine.score(rows), alone, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_each_pooling_with_a_dense_layer(self, pooling: str, bert: Path) -> None:
        with_steps(bert, pooling)
        here = open_mlx(bert)
        rows = here.rows(MIXED)

        vectors = here.engine.embed(rows)

        assert (len(rows), 12) == vectors.shape
        np.testing.assert_allclose(vectors, by_torch(here, rows), rtol=0, atol=1e-5)

    def test_a_bidirectional_gemma_sees_half_a_window_to_either_side(self, tmp_path: Path) -> None:
        here = open_mlx(write_transformer(tmp_path, "gemma3_text", use_bidirectional_attention=True))
        rows = here.rows(MIXED)

        np.testing.assert_allclose(here.engine.embed(rows), by_torch(here, rows), rtol=0, atol=1e-5)

    def test_a_bidirectional_llama_is_a_llama_that_looks_ahead(self, tmp_path: Path) -> None:
        folder = write_transformer(tmp_path, "llama")
        lay(folder, {"config.json": json.loads((folder / "config.json").read_text()) | {"model_type": "llama_bidirec"}})
        here = open_mlx(folder)
        lay(folder, {"config.json": json.loads((folder / "config.json").read_text()) | {"model_type": "llama"}})
        model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        rows = here.rows(MIXED[20:30])
        expected = []
        for row in rows:
            everything = torch.zeros(1, 1, len(row.ids), len(row.ids))
            with torch.no_grad():
                hidden = model(input_ids=torch.tensor([row.ids]), attention_mask=everything).last_hidden_state[0]
            expected.append(torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy())

        np.testing.assert_allclose(here.engine.embed(rows), expected, rtol=0, atol=1e-5)

    def test_a_window_narrower_than_the_padding_gives_no_nan(self, opened: Callable[..., Opened]) -> None:
        """Under a sliding window a place in the padding may see nothing at all."""
        here = opened("modernbert")
        rows = [Row([5, 6], None, 2, 0), Row(list(range(4, 48)), None, 44, 0)]

        vectors = here.engine.embed(rows)

        np.testing.assert_allclose(vectors[:1], here.engine.embed(rows[:1]), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_the_shape_of_qwen3_embedding(self, side: str, tmp_path: Path) -> None:
        """Last token, an instruction before queries and none before documents, padding on whichever side it says."""
        folder = write_transformer(tmp_path / "Qwen3-Embedding-tiny", "qwen3")
        stated = json.loads((folder / "tokenizer_config.json").read_text())
        lay(folder, {"tokenizer_config.json": stated | {"padding_side": side}})
        here = open_mlx(folder)
        recipe = read_recipe(folder)
        query, document = here.tokens.encode(["the fox"], recipe.prompts["query"]) + here.rows(["the fox", "x"])[:1]

        vectors = here.engine.embed([query, document])

        assert ("lasttoken",) == recipe.pooling
        assert len(query.ids) > len(document.ids)
        assert "document" not in recipe.prompts
        np.testing.assert_allclose(vectors, by_torch(here, [query, document]), rtol=0, atol=1e-5)


def with_steps(folder: Path, pooling: str) -> None:
    kinds = ("Transformer", "Pooling", "Dense", "Normalize")
    paths = ("", "1_Pooling", "2_Dense", "3_Normalize")
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{name}"}
        for at, (name, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    dense = {"in_features": HIDDEN, "out_features": 12, "activation_function": "torch.nn.modules.activation.Tanh"}
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": HIDDEN, "pooling_mode": pooling},
        "2_Dense/config.json": dense,
    }
    lay(folder, files)
    weights = torch.randn(12, HIDDEN, generator=torch.Generator().manual_seed(1))
    save_file(
        {"linear.weight": weights, "linear.bias": weights[:, 0].contiguous()}, folder / "2_Dense/model.safetensors"
    )


def with_config(folder: Path, **options: object) -> Path:
    return lay(folder, {"config.json": json.loads((folder / "config.json").read_text()) | options})


def with_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


class TestRefusals:
    def test_an_architecture_it_lacks_is_refused_with_those_it_has(self, tmp_path: Path) -> None:
        with pytest.raises(EngineUnavailable, match=r"no mpnet model, only bert, .*xlm-roberta; use --engine torch"):
            kind.open(order_of(write_transformer(tmp_path, "mpnet")))

    def test_a_reranker_it_lacks_is_refused_with_those_it_has(self, tmp_path: Path) -> None:
        with pytest.raises(EngineUnavailable, match="no distilbert model, only bert, "):
            kind.open(order_of(write_transformer(tmp_path, "distilbert", labels=1)))

    @pytest.mark.parametrize(
        ("family", "options"),
        [
            ("bert", {"hidden_act": "relu"}),
            ("bert", {"is_decoder": True}),
            ("qwen3", {"is_causal": False}),
            ("llama", {"layer_types": ["full_attention", "sliding_attention"]}),
            ("modernbert", {"hidden_activation": "silu"}),
            ("qwen3", {"use_sliding_window": True}),
            ("qwen3", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}}),
            ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}),
            ("gemma3_text", {"layer_types": ["full_attention", "sliding_attention"]}),
        ],
        ids=str,
    )
    def test_what_the_transformer_s_file_would_leave_out_is_refused(
        self, family: str, options: dict[str, object], tmp_path: Path
    ) -> None:
        folder = with_config(write_transformer(tmp_path, family), **options)

        with pytest.raises(
            EngineUnavailable, match=r"config.json: the MLX engine doesn't support .*; use --engine torch"
        ):
            kind.open(order_of(folder))

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda weights: weights.pop("embeddings.LayerNorm.bias"), "lack trunk.embeddings.LayerNorm.bias and 0"),
            (lambda weights: weights["embeddings.LayerNorm.bias"].fill_(np.nan), "LayerNorm.bias holds numbers that"),
            (lambda weights: weights.update({"encoder.adapter.weight": torch.ones(2)}), "no place for the weights enc"),
            (
                lambda weights: weights.update({"embeddings.LayerNorm.bias": torch.ones(3)}),
                r"LayerNorm.bias are \(3,\) where config.json says \(32,\)",
            ),
        ],
    )
    def test_weights_that_are_not_what_they_should_be(
        self, change: Callable[[dict[str, torch.Tensor]], object], says: str, bert: Path
    ) -> None:
        with pytest.raises((CheckpointError, EngineUnavailable), match=says):
            kind.open(order_of(with_weights(bert, change)))

    def test_a_file_that_is_no_safetensors(self, bert: Path) -> None:
        (bert / "model.safetensors").write_bytes(b"nothing of the kind")

        with pytest.raises(CheckpointError, match=r"model.safetensors: can't be loaded"):
            kind.open(order_of(bert))

    def test_a_gpu_that_is_not_there_is_refused(self, bert: Path) -> None:
        import mlx.core as mx

        if mx.metal.is_available():
            pytest.skip("there is one")

        with pytest.raises(EngineUnavailable, match="mlx sees no GPU on this machine; use --device cpu"):
            kind.open(msgspec.structs.replace(order_of(bert), device="mps"))

    def test_int8_names_the_way_to_have_it(self, bert: Path) -> None:
        with pytest.raises(EngineUnavailable, match="nearfar convert MODEL --bits 8"):
            kind.open(order_of(bert, "int8"))


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
        lay(bert, {"model.safetensors.index.json": index})
        (bert / "model.safetensors").unlink()

        np.testing.assert_array_equal(expected, open_mlx(bert).engine.embed(rows))

    @pytest.mark.parametrize(("dtype", "floor"), [("float16", 0.9999), ("bfloat16", 0.995)])
    def test_half_precision_is_near_and_pools_in_float32(
        self, dtype: Dtype, floor: float, opened: Callable[..., Opened]
    ) -> None:
        here = opened("bert")
        rows = here.rows(MIXED)

        half = open_mlx(here.folder, dtype)
        vectors = half.engine.embed(rows)

        cosines = (vectors * here.engine.embed(rows)).sum(1)
        assert floor <= cosines.min() < 1
        assert dtype == half.engine.info.dtype
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)

    def test_the_automatic_precision_on_a_processor_is_float32(self, bert: Path) -> None:
        info = open_mlx(bert, "auto").engine.info

        assert DEVICE == "mps" or ("float32", "auto: half precision is slower on a processor") == (
            info.dtype,
            info.dtype_reason,
        )


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
    lay(target, {"config.json": config})
    return target


class TestQuantized:
    @pytest.mark.parametrize("way", ["affine 8", "affine 6", "affine 4", "affine 2", "mxfp4 4", "mxfp8 8", "nvfp4 4"])
    @pytest.mark.parametrize("family", ["bert", "qwen3"])
    def test_a_quantised_folder_gives_what_torch_gives_with_the_rounded_weights(
        self, family: str, way: str, opened: Callable[..., Opened], tmp_path: Path
    ) -> None:
        here = opened(family)
        mode, _, bits = way.partition(" ")

        group = 16 if mode == "nvfp4" else 32
        made = quantize_folder(order_of(here.folder), tmp_path / "q", bits=int(bits), mode=mode, group_size=group)
        there = open_mlx(tmp_path / "q", "float32")

        rows = here.rows(MIXED)
        vectors = there.engine.embed(rows)
        rounded = by_torch(open_mlx(unquantised(tmp_path / "q", tmp_path / "rounded")), rows)
        assert (vectors * rounded).sum(1).min() >= 0.9999
        assert (vectors * here.engine.embed(rows)).sum(1).min() < 0.99999
        assert made.after < made.before * 0.6
        assert f"{bits} bit {mode}" == there.engine.info.dtype

    def test_single_layers_may_be_quantised_in_their_own_way(
        self, opened: Callable[..., Opened], tmp_path: Path
    ) -> None:
        """As mixed recipes and DWQ folders have it: config.json names the layer."""
        import mlx.core as mx

        here = opened("bert")
        quantize_folder(order_of(here.folder), tmp_path / "q", bits=4, mode="affine", group_size=32)
        name = "encoder.layer.0.attention.self.query"
        arrays: Any = mx.load(str(tmp_path / "q/model.safetensors"))
        original = mx.array(load_file(here.folder / "model.safetensors")[f"{name}.weight"].numpy())
        parts = zip(("weight", "scales", "biases"), mx.quantize(original, 32, 8), strict=True)
        arrays |= {f"{name}.{part}": array for part, array in parts}
        mx.save_safetensors(str(tmp_path / "q/model.safetensors"), arrays)
        config = json.loads((tmp_path / "q/config.json").read_text())
        config["quantization"][name] = {"group_size": 32, "bits": 8}
        lay(tmp_path / "q", {"config.json": config})

        vectors = open_mlx(tmp_path / "q", "auto").engine.embed(here.rows(MIXED))

        assert np.isfinite(vectors).all()

    def test_other_engines_say_which_one_it_is_for(self, opened: Callable[..., Opened], tmp_path: Path) -> None:
        quantize_folder(order_of(opened("bert").folder), tmp_path / "q", bits=4, mode="affine", group_size=32)

        with pytest.raises(EngineUnavailable, match="quantised for MLX; use --engine mlx"):
            TorchEngine(order_of(tmp_path / "q"))

    def test_what_can_not_be_done_is_refused(self, bert: Path, tmp_path: Path) -> None:
        order = order_of(bert)

        with pytest.raises(ConfigError, match="mxfp4 has 4 bits, not 8"):
            quantize_folder(order, tmp_path / "q", bits=8, mode="mxfp4", group_size=None)
        with pytest.raises(ConfigError, match="is there already"):
            quantize_folder(order, bert, bits=8, mode="affine", group_size=None)
        with_config(bert, quantization={"bits": 4, "group_size": 32})
        with pytest.raises(CheckpointError, match="quantised already"):
            quantize_folder(order, tmp_path / "q", bits=8, mode="affine", group_size=None)

    def test_another_library_s_quantisation_is_refused(self, bert: Path) -> None:
        with_config(bert, quantization_config={"quant_method": "gptq", "bits": 4})

        with pytest.raises(EngineUnavailable, match="quantised with gptq aren't supported, only MLX's own"):
            kind.open(order_of(bert))


METAL_SAYS = (
    "[metal::malloc] Attempting to allocate 41271951360 bytes which is greater than the maximum allowed buffer size"
)


class Full:
    """Stands before a network and has no memory for more than so many rows, or for rows over a length."""

    def __init__(self, network: Any, rows: int, length: int = POSITIONS, says: str = METAL_SAYS) -> None:
        self.network, self.rows, self.length, self.says = network, rows, length, says
        self.seen: list[tuple[int, int]] = []

    def __call__(self, ids: Any, mask: Any, types: Any) -> Any:
        self.seen.append(ids.shape)
        if ids.shape[0] > self.rows or ids.shape[1] > self.length:
            raise RuntimeError(self.says)
        return self.network(ids, mask, types)


def fill(engine: Any, **options: Any) -> Full:
    engine._network = full = Full(engine._network, **options)
    return full


class TestMemory:
    def test_a_batch_that_does_not_fit_is_halved_until_it_does(self, bert: Path) -> None:
        here = open_mlx(bert)
        rows = here.rows(TEXTS[:11])
        expected = here.engine.embed(rows)
        full = fill(here.engine, rows=2)

        np.testing.assert_allclose(here.engine.embed(rows), expected, rtol=0, atol=1e-5)
        assert {1, 2} == {count for count, _ in full.seen if count <= 2}
        assert sum(count for count, _ in full.seen if count <= 2) == len(rows)

    def test_a_row_that_does_not_fit_alone_is_named_and_the_others_answered(self, bert: Path) -> None:
        here = open_mlx(bert)
        rows = here.rows(["x", "the fox", "word " * 100, "a question?"])
        expected = here.engine.embed(rows)
        fill(here.engine, rows=4, length=20)

        with pytest.raises(RowsTooLarge) as caught:
            here.engine.embed(rows)

        assert [2] == caught.value.indices
        np.testing.assert_allclose(np.delete(caught.value.results, 2, 0), np.delete(expected, 2, 0), rtol=0, atol=1e-5)

    def test_another_fault_is_not_taken_for_a_lack_of_memory(self, bert: Path) -> None:
        here = open_mlx(bert)
        full = fill(here.engine, rows=0, says="shapes don't match")

        with pytest.raises(RuntimeError, match="shapes don't match"):
            here.engine.embed(here.rows(["a", "b"]))
        assert 1 == len(full.seen)

    def test_long_texts_run_in_smaller_parts(self) -> None:
        """32 texts of 8,194 tokens asked for a buffer of 41 GB elsewhere."""
        batch = [Row([1] * 8194, None, 8194, 0)] * 32

        parts = [len(rows) for _, rows in in_parts(batch, 16)]

        assert [1] * 32 == parts
        assert [(0, 64), (64, 36)] == [
            (at, len(rows)) for at, rows in in_parts([Row([1] * 1024, None, 0, 0)] * 100, 16)
        ]

    def test_memory_is_told_by_kind_and_given_back(self, bert: Path) -> None:
        here = open_mlx(bert)
        before = here.engine.memory()

        here.engine.close()

        assert {"active", "cache", "peak"} == before.keys()
        assert here.engine.memory()["active"] < before["active"]

    def test_2000_mixed_texts_leave_no_more_behind_than_500(self, bert: Path) -> None:
        ran = subprocess.run(
            [sys.executable, "-c", GROWING, str(bert), DEVICE], capture_output=True, text=True, check=True
        )

        after = [int(kilobytes) for kilobytes in ran.stdout.split()]
        assert 4 == len(after)
        assert max(after) < 1.05 * after[0]


GROWING = """
import os, random, subprocess, sys
from pathlib import Path
from nearfar.engines import EngineOrder
from nearfar.engines.mlx import kind
from nearfar.models.recipe import read_recipe
from nearfar.models.tokens import Row

folder, device, dice = Path(sys.argv[1]), sys.argv[2], random.Random(5)
engine = kind.open(EngineOrder(folder=folder, recipe=read_recipe(folder), device=device, dtype="float32"))
for done in range(1, 2001):
    rows = [Row([dice.randrange(4, 90) for _ in range(dice.randint(1, 48))], None, 0, 0) for _ in range(4)]
    engine.embed(rows[: dice.randint(1, 4)])
    if done % 500 == 0:
        print(subprocess.check_output(["ps", "-o", "rss=", "-p", str(os.getpid())], text=True).strip())
"""


class Slow:
    """Stands before a network, and lets nothing through before it is told to."""

    def __init__(self, network: Any) -> None:
        self.network, self.running, self.go = network, threading.Event(), threading.Event()

    def __call__(self, ids: Any, mask: Any, types: Any) -> Any:
        self.running.set()
        assert self.go.wait(30)
        return self.network(ids, mask, types)


@pytest.mark.anyio
class TestInItsLane:
    @asynccontextmanager
    async def in_lane(self, folder: Path) -> AsyncIterator[tuple[Lane, Opened, Slow]]:
        order = order_of(folder)
        lane = Lane("tiny", "embed", LaneLimits(batch_tokens=None, queue_tokens=10_000), Metrics(list))
        engine: Any = await lane.open(lambda: kind.open(order), order.probes[0])
        engine._network = slow = Slow(engine._network)
        try:
            yield lane, Opened(folder, Tokens(folder, order.recipe), engine), slow
        finally:
            slow.go.set()
            await lane.close()

    async def test_who_leaves_while_a_forward_runs_changes_nothing_for_the_others(self, bert: Path) -> None:
        async with self.in_lane(bert) as (lane, here, slow), asyncio.timeout(30):
            rows = here.rows(["the fox", "a question?", "x"])
            leaving = asyncio.create_task(lane.submit(rows[:1]))
            await until(slow.running.is_set)
            staying = asyncio.create_task(lane.submit(rows[1:]))
            leaving.cancel()
            await asyncio.sleep(0)
            slow.go.set()
            vectors = await staying

            with pytest.raises(asyncio.CancelledError):
                await leaving
            np.testing.assert_allclose(vectors, open_mlx(bert).engine.embed(rows[1:]), rtol=0, atol=1e-5)

    async def test_closing_while_a_forward_runs_waits_for_it_and_answers_who_waits(self, bert: Path) -> None:
        async with self.in_lane(bert) as (lane, here, slow), asyncio.timeout(30):
            rows = here.rows(["the fox", "a question?"])
            running, waiting = (asyncio.create_task(lane.submit([row])) for row in rows)
            await until(slow.running.is_set)
            closing = asyncio.create_task(lane.close())
            await asyncio.sleep(0.05)
            still = not closing.done()
            slow.go.set()
            await closing
            ends = await asyncio.gather(running, waiting, return_exceptions=True)

        assert still
        assert all(isinstance(end, NotReady) for end in ends)
        assert not lane.is_open


class TestChoice:
    def test_it_is_registered_and_never_the_automatic_choice_off_apple_silicon(self) -> None:
        assert installed_engines()["mlx"] is kind
        assert (kind.rank > 20) == (sys.platform == "darwin")
        assert "it has no cuda, only cpu and mps" == kind.obstacle("cuda")

    def test_it_is_first_on_apple_silicon(self) -> None:
        program = (
            "import sys, platform\n"
            "sys.platform = 'darwin'; platform.machine = lambda: 'arm64'\n"
            "from nearfar.engines import choose_engines\n"
            "print([choice.name for choice in choose_engines('auto', 'auto')][:2])\n"
        )

        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

        assert ran.stdout.startswith("['mlx', ")

    def test_opening_imports_neither_torch_nor_the_libraries_beginnings(self, bert: Path) -> None:
        program = (
            "import sys\n"
            "from pathlib import Path\n"
            "from nearfar.engines import EngineOrder\n"
            "from nearfar.engines.mlx import kind\n"
            "from nearfar.models.recipe import read_recipe\n"
            "folder = Path(sys.argv[1])\n"
            "kind.open(EngineOrder(folder=folder, recipe=read_recipe(folder), device='cpu', dtype='float32'))\n"
            "print({'torch', 'transformers', 'mlx_vlm', 'mlx_embeddings', 'mlx_lm'} & {*sys.modules})\n"
        )

        ran = subprocess.run([sys.executable, "-c", program, str(bert)], capture_output=True, text=True, check=True)

        assert ran.stdout.strip() == "set()"
