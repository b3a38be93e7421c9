"""Outputs besides one vector: token vectors, sparse vectors, labels; each as its authors' code computes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from checkpoints import HIDDEN, write_files, write_transformer
from conftest import ENGINES
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SparseEncoder
from small_models import write_colbert, write_m3, write_splade
from texts import varied_texts
from transformers import AutoModel

from nearfar.core.errors import CheckpointError, EngineUnavailable
from nearfar.engines.base import OpenRequest
from nearfar.engines.selection import installed_engines
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from nearfar.core.types import FloatArray, Representation, Role
    from nearfar.models.tokenization.row import Row

TEXTS = [*varied_texts(40), "the fox, the dog; the turtle!", "x", "? ! ,"]
QUERIES = ["a question? the fox", "x", "embeddings place a text among its neighbours and rerankers sort what was found"]
MARGIN = 1e-4


class Here:
    """A folder opened on an engine."""

    def __init__(self, folder: Path, engine: str, cache: Path | None = None) -> None:
        self.recipe = read_recipe(folder)
        self.tokens = TextEncoder(folder, self.recipe)
        request = OpenRequest(
            folder=folder,
            recipe=self.recipe,
            device="cpu",
            dtype="float32",
            probes=self.tokens.sample_rows(),
            cache_dir=cache,
            threads=1,
        )
        self.engine = installed_engines()[engine].open(request)

    def rows(self, texts: Sequence[str], role: Role = "document") -> list[Row]:
        return self.tokens.encode(texts, self.recipe.prompts.get(role, ""), role=role)

    def read(self, texts: Sequence[str], role: Role = "document") -> list[Representation]:
        return self.engine.represent(self.rows(texts, role))


def vectors_of(found: Sequence[Representation]) -> list[FloatArray]:
    return [one.multi_vector for one in found if one.multi_vector is not None]


def spread(found: Sequence[Representation]) -> FloatArray:
    """Return sparse vectors as a dense array (B, V)."""
    dense = np.zeros((len(found), found[0].sparse.size if found[0].sparse else 0), dtype=np.float32)
    for at, one in enumerate(found):
        assert one.sparse is not None
        dense[at, one.sparse.indices] = one.sparse.values
    return dense


def assert_same(expected: Sequence[Any], found: Sequence[FloatArray]) -> None:
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, np.asarray(one), rtol=0, atol=MARGIN)


@pytest.mark.parametrize("engine", ENGINES)
class TestMultiVector:
    @pytest.mark.parametrize("family", ["bert", "modernbert", "xlm-roberta", "llama"])
    def test_every_family_gives_the_vectors_of_sentence_transformers(
        self, family: str, engine: str, tmp_path: Path
    ) -> None:
        expansion = {"strategy": "fixed", "attend": False, "length": 16}
        if family != "bert":
            expansion["token"] = "</s>"
        expansion["attend"] = family == "llama"  # where MLX can't keep tokens from being seen
        model = write_colbert(tmp_path / "colbert", family, query_expansion=expansion, document_length=24)

        here = Here(tmp_path / "colbert", engine)

        assert_same(model.encode_query(QUERIES), vectors_of(here.read(QUERIES, "query")))
        assert_same(model.encode_document(TEXTS), vectors_of(here.read(TEXTS)))
        assert (0, ("multi_vector",)) == (here.recipe.dim, here.recipe.outputs)

    @pytest.mark.parametrize(
        "expansion",
        [
            None,
            {"strategy": "fixed", "attend": True, "length": 12},
            {"strategy": "min", "attend": False, "length": 12},
            {"strategy": "min", "attend": True, "length": 12, "token": "[unused0]"},
        ],
    )
    def test_queries_are_made_longer_as_the_folder_says(
        self, expansion: dict[str, Any] | None, engine: str, tmp_path: Path
    ) -> None:
        model = write_colbert(tmp_path / "colbert", "bert", query_expansion=expansion)

        here = Here(tmp_path / "colbert", engine)

        assert_same(model.encode_query(QUERIES), vectors_of(here.read(QUERIES, "query")))

    def test_queries_run_beside_documents_that_are_longer_than_a_window(self, engine: str, tmp_path: Path) -> None:
        """Tokens appended to a query attend to its own tokens; padding in the same batch attends to nothing."""
        expansion = {"strategy": "fixed", "attend": False, "length": 12, "token": "</s>"}
        model = write_colbert(tmp_path / "colbert", "modernbert", query_expansion=expansion, window=24)
        here = Here(tmp_path / "colbert", engine)
        rows = [*here.rows(QUERIES, "query"), *here.rows(TEXTS)]

        found = vectors_of(here.engine.represent(rows))

        assert max(len(row.ids) for row in rows) > 24
        assert_same([*model.encode_query(QUERIES), *model.encode_document(TEXTS)], found)

    def test_what_texts_begin_with_alike_has_vectors_in_each(self, engine: str, tmp_path: Path) -> None:
        """A decoder may compute that once where the last token is all that counts, and here every token does."""
        texts = [f"the quick brown fox jumps over the lazy dog {end}" for end in ("while", "x", "? !")]
        model = write_colbert(tmp_path / "colbert", "llama")

        here = Here(tmp_path / "colbert", engine)

        assert_same(model.encode_document(texts), vectors_of(here.read(texts)))

    def test_limits_are_those_of_the_text_s_role(self, engine: str, tmp_path: Path) -> None:
        model = write_colbert(tmp_path / "colbert", "bert", query_length=9, document_length=14)

        here = Here(tmp_path / "colbert", engine)

        assert_same(model.encode_query(TEXTS), vectors_of(here.read(TEXTS, "query")))
        assert_same(model.encode_document(TEXTS), vectors_of(here.read(TEXTS)))

    @pytest.mark.parametrize(
        "more",
        [
            {},
            {"do_query_expansion": False},
            {"skiplist_words": ["fox"]},
            {"attend_to_mask_tokens": True},
            {"attend_to_mask_tokens": True, "attend_to_expansion_tokens": False},
        ],
    )
    def test_a_folder_of_pylate_s(self, more: dict[str, Any], engine: str, tmp_path: Path) -> None:
        folder = write_transformer(tmp_path, "bert", words="pieces-colbert")
        weights = torch.randn(16, HIDDEN, generator=torch.Generator().manual_seed(3))
        modules = [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
        ]
        identity = "torch.nn.modules.linear.Identity"
        dense = {"in_features": HIDDEN, "out_features": 16, "bias": False, "activation_function": identity}
        prefixes = {"query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 16, "document_length": 20}
        config = {"model_type": "ColBERT", **prefixes, **more}
        write_files(
            folder,
            {"modules.json": modules, "1_Dense/config.json": dense, "config_sentence_transformers.json": config},
        )
        save_file({"linear.weight": weights}, folder / "1_Dense/model.safetensors")
        model = MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)

        here = Here(folder, engine)

        assert_same(model.encode_query(QUERIES), vectors_of(here.read(QUERIES, "query")))
        assert_same(model.encode_document(TEXTS), vectors_of(here.read(TEXTS)))

    @pytest.mark.parametrize("config", [None, {"mask_punctuation": False, "query_maxlen": 10, "doc_maxlen": 30}])
    def test_a_folder_of_stanford_s(self, config: dict[str, Any] | None, engine: str, tmp_path: Path) -> None:
        folder = write_transformer(tmp_path, "bert", words="pieces-colbert")
        weights = {f"bert.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
        linear = torch.randn(16, HIDDEN, generator=torch.Generator().manual_seed(4))
        save_file(weights | {"linear.weight": linear}, folder / "model.safetensors", {"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        write_files(folder, {"config.json": config | {"architectures": ["HF_ColBERT"]}})
        if config:
            write_files(folder, {"artifact.metadata": config})
        model = MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)

        here = Here(folder, engine)

        assert_same(model.encode_query(QUERIES), vectors_of(here.read(QUERIES, "query")))
        assert_same(model.encode_document(TEXTS), vectors_of(here.read(TEXTS)))


SPLADE = [
    ("bert", "max", "relu"),
    ("bert", "sum", "relu"),
    ("bert", "max", "log1p_relu"),
    ("distilbert", "max", "relu"),
]


@pytest.mark.parametrize("engine", ENGINES)
class TestSparse:
    @pytest.mark.parametrize(("family", "pooling", "activation"), SPLADE)
    def test_splade_weighs_the_vocabulary(
        self, family: str, pooling: Any, activation: Any, engine: str, tmp_path: Path
    ) -> None:
        model = write_splade(tmp_path / "splade", family, pooling_strategy=pooling, activation_function=activation)
        if (engine, family) == ("mlx", "distilbert"):
            pytest.skip("MLX has no distilbert; the table says so")

        here = Here(tmp_path / "splade", engine)

        expected = model.encode(TEXTS, convert_to_sparse_tensor=False).numpy()
        np.testing.assert_allclose(spread(here.read(TEXTS)), expected, rtol=1e-5, atol=MARGIN)  # sums go up to 50
        assert ("sparse",) == here.recipe.outputs

    def test_a_folder_without_modules_is_known_by_its_name(self, engine: str, tmp_path: Path) -> None:
        folder = write_transformer(tmp_path / "splade-v3", "bert", masked=True)
        model = SparseEncoder(str(folder), device="cpu", local_files_only=True)

        here = Here(folder, engine)

        expected = model.encode(TEXTS, convert_to_sparse_tensor=False).numpy()
        np.testing.assert_allclose(spread(here.read(TEXTS)), expected, rtol=1e-5, atol=MARGIN)  # sums go up to 50
        assert "the model's name; the folder has no modules.json" == here.recipe.pooling_source

    def test_bge_m3_gives_all_three_from_one_forward(self, engine: str, tmp_path: Path) -> None:
        """As FlagEmbedding's M3 does: weights of all but special tokens, vectors of all but the first."""
        folder = write_m3(tmp_path / "bge-m3")
        here = Here(folder, engine)
        heads = {name: load_file(folder / f"{name}.safetensors") for name in ("colbert_linear", "sparse_linear")}
        trunk = AutoModel.from_pretrained(folder).eval()

        found = here.read(TEXTS)

        for row, one in zip(here.rows(TEXTS), found, strict=True):
            with torch.inference_mode():
                hidden = trunk(torch.tensor([row.ids])).last_hidden_state[0]
                states = {name: torch.nn.functional.linear(hidden, **head) for name, head in heads.items()}
                vectors = torch.nn.functional.normalize(states["colbert_linear"][1:], dim=-1)
                dense = torch.nn.functional.normalize(hidden[0], dim=-1)
                weights = torch.relu(states["sparse_linear"])[:, 0].tolist()
            expected: dict[int, float] = {}
            for token, weight in zip(row.ids, weights, strict=True):
                if token > 3 and weight > 0:
                    expected[token] = max(expected.get(token, 0), weight)
            assert one.sparse is not None
            assert sorted(expected) == one.sparse.indices.tolist()
            np.testing.assert_allclose(one.sparse.values, [expected[at] for at in sorted(expected)], atol=MARGIN)
            assert_same([dense, vectors], [np.asarray(one.dense), np.asarray(one.multi_vector)])
        assert ("dense", "multi_vector", "sparse") == here.recipe.outputs
        alone = here.engine.embed(here.rows(TEXTS))
        np.testing.assert_allclose(alone, np.stack([np.asarray(one.dense) for one in found]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "modernbert", "qwen3"])
def test_a_classifier_gives_a_logit_for_each_label(family: str, engine: str, tmp_path: Path) -> None:
    folder = write_transformer(tmp_path, family, labels=3)
    if family == "bert":  # as its own tokenizers do; transformers' generic one omits the types otherwise
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
        names = ["input_ids", "token_type_ids", "attention_mask"]
        write_files(folder, {"tokenizer_config.json": {**tokenizer, "model_input_names": names}})
    model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    here = Here(folder, engine)
    pairs = [(QUERIES[0], text) for text in TEXTS[:20]]

    found = here.engine.score(here.tokens.encode_pairs(QUERIES[0], TEXTS[:20], None))

    assert (20, 3) == found.shape
    np.testing.assert_allclose(found, model.predict(pairs), rtol=0, atol=MARGIN)


class TestRefusals:
    @pytest.mark.parametrize("engine", [name for name in ENGINES if name != "torch"])
    def test_a_token_that_would_see_nothing_is_left_to_torch(self, engine: str, tmp_path: Path) -> None:
        """Far from the query's own tokens there is nothing to see, and only torch's attention makes 0 of that."""
        expansion = {"strategy": "fixed", "attend": False, "length": 16, "token": "</s>"}
        write_colbert(tmp_path / "colbert", "modernbert", query_expansion=expansion, window=8)

        with pytest.raises(EngineUnavailable, match=r"an attention window of 8 tokens.*use --engine torch"):
            Here(tmp_path / "colbert", engine)

    def test_a_step_that_would_change_the_vectors_is_named(self, tmp_path: Path) -> None:
        write_colbert(tmp_path / "colbert", "bert")
        file = tmp_path / "colbert/modules.json"
        modules = json.loads(file.read_text())
        pooled = {"idx": 4, "name": "4", "path": "4_P", "type": "sentence_transformers.x.HierarchicalTokenPooling"}
        file.write_text(json.dumps([*modules, pooled]))

        with pytest.raises(CheckpointError, match=r"modules\.json: the step HierarchicalTokenPooling"):
            read_recipe(tmp_path / "colbert")

    def test_queries_that_are_made_longer_at_their_start_are_refused(self, tmp_path: Path) -> None:
        expansion = {"strategy": "fixed", "attend": True, "length": 16, "token": "</s>"}
        write_colbert(tmp_path / "colbert", "qwen3", query_expansion=expansion)

        with pytest.raises(
            CheckpointError,
            match=r"tokenizer_config\.json: query expansion with padding_side = left .*; turn query_expansion",
        ):
            read_recipe(tmp_path / "colbert")

    @pytest.mark.skipif("mlx" not in ENGINES, reason="needs mlx")
    def test_a_decoder_that_can_not_overlook_tokens_is_left_to_torch(self, tmp_path: Path) -> None:
        expansion = {"strategy": "fixed", "attend": False, "length": 16, "token": "</s>"}
        write_colbert(tmp_path / "colbert", "llama", query_expansion=expansion)

        with pytest.raises(
            EngineUnavailable, match=r"no llama ColBERT model with unattended query expansion, only bert"
        ):
            Here(tmp_path / "colbert", "mlx")

    @pytest.mark.skipif("mlx" not in ENGINES, reason="needs mlx")
    def test_mlx_says_which_splade_models_it_has(self, tmp_path: Path) -> None:
        folder = write_transformer(tmp_path / "splade", "xlm-roberta", masked=True)

        with pytest.raises(EngineUnavailable, match=r"no xlm-roberta SPLADE model, only bert; use --engine torch"):
            Here(folder, "mlx")

    def test_a_head_of_another_width_is_named(self, tmp_path: Path) -> None:
        folder = write_m3(tmp_path / "bge-m3")
        save_file({"weight": torch.zeros(4, 8)}, folder / "colbert_linear.safetensors")

        with pytest.raises(CheckpointError, match=r"colbert_linear\.safetensors: has no weight for 32 inputs"):
            read_recipe(folder)


@pytest.mark.parametrize("name", ["sentence_bert_config.json", "sentence_roberta_config.json"])
def test_lengths_of_a_colbert_are_read_from_each_name_of_the_file(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "colbert"
    write_colbert(folder, "bert", query_length=8, document_length=24)
    (folder / "sentence_bert_config.json").rename(folder / name)

    found = read_recipe(folder).multi_vector

    assert found
    assert (8, 24) == (found.max_query_tokens, found.max_document_tokens)
