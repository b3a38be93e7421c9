"""The MLX engine computes transformers' numbers, or refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
import torch
from checkpoints import POSITIONS, write_files, write_steps, write_transformer
from mlx_models import MIXED, Opened, by_torch, open_mlx, order_of, with_config, with_weights
from transformers import AutoModel, AutoModelForSequenceClassification

from nearfar.core.errors import CheckpointError, EngineUnavailable
from nearfar.engines.mlx import kind
from nearfar.engines.mlx.attention import window_mask
from nearfar.engines.selection import installed_engines
from nearfar.models.reading.reader import read_recipe
from nearfar.models.recipe.dense import POOLINGS
from nearfar.models.tokenization.row import Row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


EMBEDDERS = ("bert", "roberta", "camembert", "xlm-roberta", "modernbert", "qwen3", "llama", "gemma3_text", "lfm2")
RERANKERS = ("bert", "roberta", "xlm-roberta", "modernbert", "qwen3", "llama")


class TestNumbers:
    @pytest.mark.parametrize("family", EMBEDDERS)
    def test_hidden_states_pooled_are_transformers(self, family: str, on_mlx: Callable[..., Opened]) -> None:
        """One row at a time through transformers itself, with nothing of ours but the pooling of one row."""
        here = on_mlx(family)
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
        assert vectors.std(axis=0).max() > 0.05  # these tiny models do distinguish texts
        assert POSITIONS == max(len(row.ids) for row in rows)

    @pytest.mark.parametrize("family", RERANKERS)
    def test_logits_are_transformers(self, family: str, on_mlx: Callable[..., Opened]) -> None:
        here = on_mlx(family, 1)
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
        self, family: str, on_mlx: Callable[..., Opened]
    ) -> None:
        here = on_mlx(family)
        rows = here.rows(MIXED)

        alone = np.concatenate([here.engine.embed([row]) for row in rows])

        for size in (2, 5, 13, len(rows)):
            np.testing.assert_allclose(here.engine.embed(rows[:size]), alone[:size], rtol=0, atol=1e-5)

    @pytest.mark.parametrize("family", RERANKERS)
    def test_neighbours_change_no_logit(self, family: str, on_mlx: Callable[..., Opened]) -> None:
        here = on_mlx(family, 1)
        rows = here.pairs(MIXED)

        alone = np.concatenate([here.engine.score([row]) for row in rows])

        np.testing.assert_allclose(here.engine.score(rows), alone, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("pooling", POOLINGS)
    def test_each_pooling_with_a_dense_layer(self, pooling: str, bert: Path) -> None:
        write_steps(bert, pooling)
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
        write_files(
            folder, {"config.json": json.loads((folder / "config.json").read_text()) | {"model_type": "llama_bidirec"}}
        )
        here = open_mlx(folder)
        write_files(folder, {"config.json": json.loads((folder / "config.json").read_text()) | {"model_type": "llama"}})
        model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        rows = here.rows(MIXED[20:30])
        expected = []
        for row in rows:
            everything = torch.zeros(1, 1, len(row.ids), len(row.ids))
            with torch.no_grad():
                hidden = model(input_ids=torch.tensor([row.ids]), attention_mask=everything).last_hidden_state[0]
            expected.append(torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy())

        np.testing.assert_allclose(here.engine.embed(rows), expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize(
        "scaling",
        [
            {"rope_type": "linear", "factor": 2.0},
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        ],
        ids=lambda scaling: str(scaling["rope_type"]),
    )
    def test_a_llama_s_positions_may_be_stretched(self, scaling: dict[str, object], tmp_path: Path) -> None:
        here = open_mlx(write_transformer(tmp_path, "llama", rope_parameters={"rope_theta": 500_000.0} | scaling))
        rows = here.rows(MIXED)

        np.testing.assert_allclose(here.engine.embed(rows), by_torch(here, rows), rtol=0, atol=1e-5)

    def test_a_window_narrower_than_the_padding_gives_no_nan(self, on_mlx: Callable[..., Opened]) -> None:
        """Under a sliding window a place in the padding may see nothing at all."""
        here = on_mlx("modernbert")
        rows = [Row([5, 6], None, 2, 0), Row(list(range(4, 48)), None, 44, 0)]

        vectors = here.engine.embed(rows)

        np.testing.assert_allclose(vectors[:1], here.engine.embed(rows[:1]), rtol=0, atol=1e-5)

    def test_every_place_sees_something_even_in_the_padding(self) -> None:
        """What sees nothing is NaN on some devices, and spreads from there."""
        import mlx.core as mx

        mask = mx.array([[1] * 2 + [0] * 42, [1] * 44])

        seen = np.array(window_mask(44, 4, mask))

        assert (2, 1, 44, 44) == seen.shape
        assert seen.any(axis=-1).all()
        assert not seen[0, 0, :2, 2:].any()  # and no text sees padding

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_the_shape_of_qwen3_embedding(self, side: str, tmp_path: Path) -> None:
        """Last-token pooling, an instruction before queries only, and padding on either side."""
        folder = write_transformer(tmp_path / "Qwen3-Embedding-tiny", "qwen3")
        stated = json.loads((folder / "tokenizer_config.json").read_text())
        write_files(folder, {"tokenizer_config.json": stated | {"padding_side": side}})
        here = open_mlx(folder)
        recipe = read_recipe(folder)
        query, document = here.tokens.encode(["the fox"], recipe.prompts["query"]) + here.rows(["the fox", "x"])[:1]

        vectors = here.engine.embed([query, document])

        assert ("lasttoken",) == recipe.pooling
        assert len(query.ids) > len(document.ids)
        assert "document" not in recipe.prompts
        np.testing.assert_allclose(vectors, by_torch(here, [query, document]), rtol=0, atol=1e-5)


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
            ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}}),
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
            (lambda weights: weights.pop("embeddings.LayerNorm.bias"), "lack trunk.embeddings.LayerNorm.bias that"),
            (lambda weights: weights["embeddings.LayerNorm.bias"].fill_(np.nan), "LayerNorm.bias has values that"),
            (lambda weights: weights.update({"encoder.adapter.weight": torch.ones(2)}), "no place for the weights enc"),
            (
                lambda weights: weights.update({"embeddings.LayerNorm.scales": torch.ones(2)}),
                "no place for the weights",
            ),
            (lambda weights: weights.update({"dense.0.weight": torch.ones(2)}), "Dense layers inside, as mlx-embeddi"),
            (
                lambda weights: weights.update({"embeddings.LayerNorm.bias": torch.ones(3)}),
                r"LayerNorm.bias are \(3,\), but \(32,\) according to config.json",
            ),
        ],
    )
    def test_weights_that_are_not_what_they_should_be(
        self, change: Callable[[dict[str, torch.Tensor]], object], says: str, bert: Path
    ) -> None:
        with pytest.raises((CheckpointError, EngineUnavailable), match=says):
            kind.open(order_of(with_weights(bert, change)))

    @pytest.mark.parametrize(
        ("family", "name"), [("qwen3", "layers.0.self_attn.q_proj.bias"), ("llama", "layers.0.mlp.up_proj.bias")]
    )
    def test_a_bias_that_no_layer_adds_is_refused(self, family: str, name: str, tmp_path: Path) -> None:
        folder = write_transformer(tmp_path, family)
        with_weights(folder, lambda weights: weights.update({name: torch.full((32,), 5.0)}))

        with pytest.raises(EngineUnavailable, match=f"no place for the weights {name}; use --engine torch"):
            kind.open(order_of(folder))

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


class TestChoice:
    def test_it_is_registered_and_never_the_automatic_choice_off_apple_silicon(self) -> None:
        assert installed_engines()["mlx"] is kind
        assert (kind.priority > 20) == (sys.platform == "darwin")
        assert "it has no cuda, only cpu and mps" == kind.unavailable_reason("cuda")

    def test_it_is_first_on_apple_silicon(self) -> None:
        program = (
            "import sys, platform\n"
            "sys.platform = 'darwin'; platform.machine = lambda: 'arm64'\n"
            "from nearfar.engines.selection import choose_engines\n"
            "print([choice.name for choice in choose_engines('auto', 'auto')][:2])\n"
        )

        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

        assert ran.stdout.startswith("['mlx', ")

    def test_opening_imports_neither_torch_nor_the_libraries_beginnings(self, bert: Path) -> None:
        program = (
            "import sys\n"
            "from pathlib import Path\n"
            "from nearfar.engines import OpenRequest\n"
            "from nearfar.engines.mlx import kind\n"
            "from nearfar.models.reading.reader import read_recipe\n"
            "folder = Path(sys.argv[1])\n"
            "kind.open(OpenRequest(folder=folder, recipe=read_recipe(folder), device='cpu', dtype='float32'))\n"
            "print({'torch', 'transformers', 'mlx_vlm', 'mlx_embeddings', 'mlx_lm'} & {*sys.modules})\n"
        )

        ran = subprocess.run([sys.executable, "-c", program, str(bert)], capture_output=True, text=True, check=True)

        assert ran.stdout.strip() == "set()"
