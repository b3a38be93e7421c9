"""The Torch engine computes the numbers of sentence-transformers and transformers.

Each checkpoint is tiny and random but of a real architecture, and is opened by the reference library and by us.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from checkpoints import FAMILIES, HIDDEN, POSITIONS, write_files, write_transformer
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from transformers import AutoModelForSequenceClassification, AutoTokenizer, T5Config, T5Model

from nearfar.core.errors import CheckpointError, EngineUnavailable
from nearfar.engines.base import OpenRequest
from nearfar.engines.torch import kind
from nearfar.engines.torch.engine import TorchEngine
from nearfar.models.hub.checkpoint import find_builtin
from nearfar.models.reading.reader import read_recipe
from nearfar.models.recipe.dense import POOLINGS
from nearfar.models.tokenization.row import Row
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from nearfar.core.settings import Device, Dtype
    from nearfar.core.types import FloatArray
    from nearfar.models.recipe.dense import Pooling as Pooling_
    from nearfar.models.recipe.recipe import Recipe

COSINE = 0.99999  # of a vector with the reference's, both in float32
HALF_COSINE = 0.999  # of a vector computed in half precision with the one in float32
TEXTS = (
    "the fox",
    "a query, a document; a question? an answer!",
    "  Der schnelle  Fuchs springt über den Hund ",
    "素早い茶色の狐 🦊",
    "[PAD] and <pad> and [SEP] and </s>",
    "x",
    "the quick brown fox jumps over the lazy dog while the slow turtle sleeps " * 8,
)
QUERY = "a question? the fox"
RERANKERS = ("bert", "xlm-roberta", "roberta", "modernbert", "distilbert", "mpnet", "qwen3")


class Opened(NamedTuple):
    recipe: Recipe
    tokens: TextEncoder
    engine: TorchEngine

    def embed(self, texts: Sequence[str], prompt: str = "") -> FloatArray:
        return self.engine.embed(self.tokens.encode(texts, prompt))

    def score(self, query: str, documents: Sequence[str]) -> FloatArray:
        return self.engine.score(self.tokens.encode_pairs(query, documents, None))


def open_folder(folder: Path, dtype: Dtype = "float32", device: Device = "cpu") -> Opened:
    recipe = read_recipe(folder)
    engine = TorchEngine(OpenRequest(folder=folder, recipe=recipe, device=device, dtype=dtype))
    return Opened(recipe, TextEncoder(folder, recipe), engine)


def cosines(ours: FloatArray, theirs: FloatArray) -> FloatArray:
    """Return the (B,) cosines of the rows, in double precision."""
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    found: FloatArray = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return found


def assert_same_vectors(expected: FloatArray, found: FloatArray) -> None:
    assert (expected.shape, "float32") == (found.shape, str(found.dtype))
    assert cosines(found, expected).min() >= COSINE
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(expected, axis=1), rtol=1e-4)


def texts_around_the_limit(opened: Opened) -> list[str]:
    """Make texts of one token less than the model takes, as many, one more, and many more."""
    limit = opened.recipe.max_tokens
    lengths = {}
    for at in range(1, 2 * limit):
        text = "".join("!?,;"[i % 4] for i in range(at))
        row = opened.tokens.encode([text])[0]
        lengths[len(row.ids) + row.truncated_tokens] = text
    return [lengths[limit + over] for over in (-1, 0, 1, 9)]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a family's transformer once, without anything of sentence-transformers'."""
    folders: dict[str, Path] = {}

    def write(family: str) -> Path:
        if family not in folders:
            folders[family] = write_transformer(tmp_path_factory.mktemp(family), family)
        return folders[family]

    return write


@pytest.fixture(scope="module")
def rerankers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folders: dict[str, Path] = {}

    def write(family: str) -> Path:
        if family not in folders:
            folders[family] = write_transformer(tmp_path_factory.mktemp(f"ranking-{family}"), family, labels=1)
        return folders[family]

    return write


@pytest.fixture
def bert(bare: Callable[[str], Path], tmp_path: Path) -> Path:
    """Copy a BERT, to be damaged."""
    return shutil.copytree(bare("bert"), tmp_path / "bert")


def write_sentence_model(
    folder: Path, transformer: Path, *steps: torch.nn.Module, **options: Any
) -> SentenceTransformer:
    """Save the transformer with the steps after it as sentence-transformers does, and open it there."""
    limit = options.pop("max_seq_length", None)
    first = Transformer(str(transformer), max_seq_length=limit)
    SentenceTransformer(modules=[first, *steps], device="cpu", **options).save(str(folder), create_model_card=False)
    return SentenceTransformer(str(folder), device="cpu")


class TestFamilies:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_vectors_are_those_of_sentence_transformers(
        self, family: str, bare: Callable[[str], Path], tmp_path: Path
    ) -> None:
        usual = read_recipe(bare(family)).pooling[0]
        theirs = write_sentence_model(tmp_path, bare(family), Pooling(HIDDEN, usual), Normalize())
        opened = open_folder(tmp_path)
        texts = [*TEXTS, *texts_around_the_limit(opened)]

        vectors = opened.embed(texts)

        assert POSITIONS == opened.recipe.max_tokens
        assert_same_vectors(theirs.encode(texts), vectors)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_a_text_s_neighbours_in_the_batch_change_nothing(self, family: str, bare: Callable[[str], Path]) -> None:
        opened = open_folder(bare(family))
        texts = [*TEXTS, *texts_around_the_limit(opened)]

        together = opened.embed(texts)

        alone = np.concatenate([opened.embed([text]) for text in texts])
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
        np.testing.assert_allclose(together[::-1], opened.embed(texts[::-1]), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_different_texts_have_different_vectors(self, family: str, bare: Callable[[str], Path]) -> None:
        """The control of the tests above: these tiny models do distinguish texts."""
        vectors = open_folder(bare(family)).embed(TEXTS)

        similar = vectors @ vectors.T - np.eye(len(TEXTS), dtype=np.float32)
        assert similar.max() < 0.99

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    @pytest.mark.parametrize("family", ["bert", "xlm-roberta", "modernbert", "qwen3", "llama", "gpt2"])
    def test_half_precision_stays_close(self, family: str, dtype: Dtype, bare: Callable[[str], Path]) -> None:
        expected = open_folder(bare(family)).embed(TEXTS)
        opened = open_folder(bare(family), dtype)

        vectors = opened.embed(TEXTS)

        assert (dtype, "float32") == (opened.engine.info.dtype, str(vectors.dtype))
        assert cosines(vectors, expected).min() >= HALF_COSINE
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)

    def test_the_built_in_model_s_vectors_are_those_of_sentence_transformers(self) -> None:
        folder = find_builtin().folder
        opened = open_folder(folder)

        vectors = opened.embed(TEXTS)

        assert_same_vectors(SentenceTransformer(str(folder), device="cpu").encode(list(TEXTS)), vectors)


def dense(inputs: int, outputs: int, **options: Any) -> Dense:
    with torch.random.fork_rng():
        torch.manual_seed(inputs + outputs)
        return Dense(inputs, outputs, **options)


class Steps(NamedTuple):
    """What follows a transformer: the modes of pooling, the widths and options of dense layers, and the last step."""

    pooling: tuple[Pooling_, ...]
    dense: tuple[tuple[int, dict[str, Any]], ...] = ()
    normalize: bool = False

    def build(self) -> list[torch.nn.Module]:
        modules: list[torch.nn.Module] = [Pooling(HIDDEN, self.pooling)]
        width = HIDDEN * len(self.pooling)
        for outputs, options in self.dense:
            modules.append(dense(width, outputs, **options))
            width = outputs
        return [*modules, Normalize()] if self.normalize else modules


WITHOUT_BIAS = {"bias": False, "activation_function": torch.nn.Identity()}
GELU, RELU = {"activation_function": torch.nn.GELU()}, {"activation_function": torch.nn.ReLU()}
STEPS = {
    **{mode: Steps((mode,)) for mode in POOLINGS},
    **{f"{mode}, normalised": Steps((mode,), normalize=True) for mode in POOLINGS},
    "two modes": Steps(("mean", "cls")),
    "all modes, normalised": Steps(POOLINGS, normalize=True),
    "dense": Steps(("mean",), ((12, {}),)),
    "dense without a bias, normalised": Steps(("cls",), ((12, WITHOUT_BIAS),), normalize=True),
    "two modes, two dense, normalised": Steps(("max", "lasttoken"), ((40, GELU), (8, RELU)), normalize=True),
}


class TestSteps:
    @pytest.mark.parametrize("family", ["bert", "qwen3"])
    @pytest.mark.parametrize("steps", STEPS)
    def test_vectors_are_those_of_sentence_transformers(
        self, steps: str, family: str, bare: Callable[[str], Path], tmp_path: Path
    ) -> None:
        theirs = write_sentence_model(tmp_path, bare(family), *STEPS[steps].build())
        opened = open_folder(tmp_path)
        expected = theirs.encode(list(TEXTS))

        vectors = opened.embed(TEXTS)

        assert_same_vectors(expected, vectors)
        assert expected.shape[1] == opened.recipe.dim == opened.engine.info.dim
        assert_same_vectors(expected[2:3], opened.embed(TEXTS[2:3]))

    def test_flags_in_the_older_spelling_mean_the_same(self, bare: Callable[[str], Path], tmp_path: Path) -> None:
        write_sentence_model(tmp_path, bare("bert"), Pooling(HIDDEN, "mean"))
        flags = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}
        write_files(tmp_path, {"1_Pooling/config.json": {"word_embedding_dimension": HIDDEN, **flags}})
        theirs = SentenceTransformer(str(tmp_path), device="cpu")

        vectors = open_folder(tmp_path).embed(TEXTS)

        assert_same_vectors(theirs.encode(list(TEXTS)), vectors)

    def test_a_smaller_limit_cuts_where_sentence_transformers_cuts(
        self, bare: Callable[[str], Path], tmp_path: Path
    ) -> None:
        theirs = write_sentence_model(tmp_path, bare("bert"), Pooling(HIDDEN, "mean"), max_seq_length=16)
        opened = open_folder(tmp_path)
        texts = [*TEXTS, *texts_around_the_limit(opened)]

        vectors = opened.embed(texts)

        assert opened.recipe.max_tokens == 16
        assert_same_vectors(theirs.encode(texts), vectors)

    def test_prompts_are_put_where_sentence_transformers_puts_them(
        self, bare: Callable[[str], Path], tmp_path: Path
    ) -> None:
        prompts = {"query": "a question: ", "document": ""}
        options = {"prompts": prompts, "default_prompt_name": "query"}
        theirs = write_sentence_model(tmp_path, bare("bert"), Pooling(HIDDEN, "mean"), Normalize(), **options)
        opened = open_folder(tmp_path)

        asked = opened.embed(TEXTS, opened.recipe.prompts[opened.recipe.default_prompt or ""])
        plain = opened.embed(TEXTS)

        assert_same_vectors(theirs.encode(list(TEXTS)), asked)
        assert_same_vectors(theirs.encode(list(TEXTS), prompt_name="document"), plain)
        assert cosines(asked, plain).min() < COSINE

    def test_lower_casing_is_sentence_transformers_own(self, bare: Callable[[str], Path], tmp_path: Path) -> None:
        write_sentence_model(tmp_path, bare("roberta"), Pooling(HIDDEN, "mean"))
        write_files(tmp_path, {"sentence_bert_config.json": {"max_seq_length": POSITIONS, "do_lower_case": True}})
        theirs = SentenceTransformer(str(tmp_path), device="cpu")
        texts = ["The Quick FOX", "ÜBER den Hund", "Ελλάς ΣΊΣΥΦΟΣ İstanbul"]

        vectors = open_folder(tmp_path).embed(texts)

        assert_same_vectors(theirs.encode(texts), vectors)


class TestRerankers:
    """A pair's logit is that of transformers."""

    def reference(self, family: str, folder: Path, documents: Sequence[str]) -> FloatArray:
        """Score the pairs one by one; only BERT's own tokenizer distinguishes its two texts."""
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        cut = {"truncation": "only_second", "max_length": POSITIONS}
        scores = []
        for document in documents:
            token_types = {"return_token_type_ids": family == "bert"}
            inputs = tokenizer(QUERY, document, return_tensors="pt", **token_types, **cut)
            with torch.inference_mode():
                scores.append(model(**inputs).logits[0, 0].item())
        return np.array(scores, dtype=np.float32)

    @pytest.mark.parametrize("family", RERANKERS)
    def test_pairs_of_many_lengths_and_over_the_limit_in_one_batch(
        self, family: str, rerankers: Callable[[str], Path]
    ) -> None:
        expected = self.reference(family, rerankers(family), TEXTS)

        scores = open_folder(rerankers(family)).score(QUERY, TEXTS)

        assert ((len(TEXTS),), "float32") == (scores.shape, str(scores.dtype))
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)

    @pytest.mark.parametrize("family", RERANKERS)
    def test_a_pair_s_neighbours_in_the_batch_change_nothing(
        self, family: str, rerankers: Callable[[str], Path]
    ) -> None:
        opened = open_folder(rerankers(family))

        together = opened.score(QUERY, TEXTS)

        alone = np.concatenate([opened.score(QUERY, [text]) for text in TEXTS])
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4)
        assert together.std() > 0.01  # these tiny models do distinguish documents

    def test_a_decoder_without_a_padding_token_still_scores_batches(
        self, rerankers: Callable[[str], Path], tmp_path: Path
    ) -> None:
        folder = shutil.copytree(rerankers("qwen3"), tmp_path / "qwen3")
        config = json.loads((folder / "config.json").read_text())
        write_files(folder, {"config.json": config | {"pad_token_id": None}})
        expected = open_folder(rerankers("qwen3")).score(QUERY, TEXTS)

        scores = open_folder(folder).score(QUERY, TEXTS)

        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)

    def test_without_a_padding_id_a_row_that_ends_in_id_0_is_scored_at_its_end(
        self, rerankers: Callable[[str], Path], tmp_path: Path
    ) -> None:
        """To a decoder's vocabulary 0 is a token like any other; taken for padding, it would be looked past."""
        folder = shutil.copytree(rerankers("qwen3"), tmp_path / "qwen3")
        config = json.loads((folder / "config.json").read_text())
        write_files(folder, {"config.json": config | {"pad_token_id": None}})
        rows = [Row(ids, None, len(ids), 0) for ids in ([5, 6, 7, 0], [5, 6, 7], [8, 9, 0], [5, 6, 7, 8, 9])]
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        with torch.inference_mode():
            expected = [model(torch.tensor([row.ids])).logits.item() for row in rows]

        scores = open_folder(folder).engine.score(rows)

        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)

    def test_pairs_with_and_without_type_ids_share_a_batch(self, rerankers: Callable[[str], Path]) -> None:
        opened = open_folder(rerankers("bert"))
        (row,) = opened.tokens.encode_pairs(QUERY, ["the dog"], None)
        untyped = Row(row.ids, None, row.token_count, row.truncated_tokens)
        zeros = Row(row.ids, [0] * len(row.ids), row.token_count, row.truncated_tokens)

        mixed = opened.engine.score([row, untyped])

        expected = np.concatenate([opened.engine.score([row]), opened.engine.score([zeros])])
        np.testing.assert_allclose(mixed, expected, rtol=0, atol=1e-5)


class TestInfo:
    def test_info_describes_the_opened_model(self, bare: Callable[[str], Path]) -> None:
        info = open_folder(bare("bert")).engine.info

        assert ("torch", "cpu", "float32", HIDDEN) == (info.name, info.device, info.dtype, info.dim)
        assert info.batch_tokens > 0

    def test_auto_is_float32_even_where_the_weights_are_not(self, bert: Path) -> None:
        halves = {name: weight.half() for name, weight in load_file(bert / "model.safetensors").items()}
        save_file(halves, bert / "model.safetensors", {"format": "pt"})
        write_files(bert, {"config.json": json.loads((bert / "config.json").read_text()) | {"dtype": "float16"}})

        opened = open_folder(bert, "auto")

        assert opened.engine.info.dtype == "float32"

    def test_the_kind_opens_the_engine(self, bare: Callable[[str], Path]) -> None:
        folder = bare("bert")
        request = OpenRequest(folder=folder, recipe=read_recipe(folder), device="auto", dtype="float32")

        engine = kind.open(request)

        assert kind.unavailable_reason("auto") is None
        assert engine.info.name == "torch"
        engine.close()


class TestRefusals:
    def test_weights_that_are_not_finite(self, bare: Callable[[str], Path], tmp_path: Path) -> None:
        """On short rows attention may hide them, so that the answers look like answers."""
        folder = shutil.copytree(bare("bert"), tmp_path / "bert")
        weights = load_file(folder / "model.safetensors")
        name = next(key for key in weights if "query.weight" in key)
        save_file(weights | {name: weights[name] * float("nan")}, folder / "model.safetensors", {"format": "pt"})

        with pytest.raises(CheckpointError, match=r"the weights are damaged: .*query\.weight.*; ") as refused:
            open_folder(folder)

        assert str(refused.value).startswith(str(folder / "model.safetensors"))

    def test_a_device_that_is_not_there(self, bare: Callable[[str], Path]) -> None:
        missing: Device = "mps" if torch.cuda.is_available() else "cuda"

        with pytest.raises(EngineUnavailable) as refused:
            open_folder(bare("bert"), device=missing)

        assert str(refused.value).startswith(f"torch sees no {missing} device on this machine; it has: cpu")

    @pytest.mark.parametrize("lost", ["embeddings.word_embeddings.weight", "encoder.layer.1.output.dense.bias"])
    def test_a_weight_that_is_missing(self, lost: str, bert: Path) -> None:
        """Transformers would make it up at random, with no more than a line in the log."""
        weights = load_file(bert / "model.safetensors")
        del weights[lost]
        save_file(weights, bert / "model.safetensors", {"format": "pt"})

        with pytest.raises(CheckpointError) as refused:
            open_folder(bert)

        assert str(refused.value).startswith(f"{bert}: the weights lack {lost} that the model needs; ")

    def test_a_reranker_s_head_that_is_missing(self, bert: Path) -> None:
        config = json.loads((bert / "config.json").read_text())
        reranker = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
        write_files(bert, {"config.json": config | reranker})

        with pytest.raises(CheckpointError, match=r"the weights lack classifier\.bias and 1 more"):
            open_folder(bert)

    def test_but_not_a_missing_pooler_which_no_vector_comes_from(self, bert: Path) -> None:
        expected = open_folder(bert).embed(TEXTS)
        weights = load_file(bert / "model.safetensors")
        kept = {name: weight for name, weight in weights.items() if "pooler" not in name}
        save_file(kept, bert / "model.safetensors", {"format": "pt"})

        vectors = open_folder(bert).embed(TEXTS)

        assert len(kept) < len(weights)
        np.testing.assert_array_equal(expected, vectors)

    @pytest.mark.parametrize("keep", [0, 7, 100, -1])
    def test_a_file_of_weights_cut_short(self, keep: int, bert: Path) -> None:
        file = bert / "model.safetensors"
        file.write_bytes(file.read_bytes()[:keep])

        with pytest.raises(CheckpointError) as refused:
            open_folder(bert)

        assert str(refused.value).startswith(f"{bert}: can't be loaded: ")

    def test_a_shard_that_is_missing(self, bert: Path) -> None:
        weights = load_file(bert / "model.safetensors")
        (bert / "model.safetensors").unlink()
        shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
        index = {"metadata": {}, "weight_map": {name: shards[at % 2] for at, name in enumerate(weights)}}
        write_files(bert, {"model.safetensors.index.json": index})
        save_file({name: weights[name] for name in [*weights][::2]}, bert / shards[0], {"format": "pt"})

        with pytest.raises(CheckpointError) as refused:
            open_folder(bert)

        assert str(refused.value).startswith(f"{bert}: can't be loaded: ")

    def test_weights_of_another_width(self, bert: Path) -> None:
        config = json.loads((bert / "config.json").read_text())
        write_files(bert, {"config.json": config | {"hidden_size": 64}})

        with pytest.raises(CheckpointError) as refused:
            open_folder(bert)

        assert str(refused.value).startswith(f"{bert}: can't be loaded: ")

    def test_an_encoder_with_a_decoder(self, tmp_path: Path) -> None:
        sizes = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 32}
        T5Model(T5Config(**sizes)).save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        write_files(
            tmp_path, {"config.json": {key: value for key, value in config.items() if key != "is_encoder_decoder"}}
        )

        with pytest.raises(CheckpointError) as refused:
            read_recipe(tmp_path, 32)

        expected = f"{tmp_path / 'config.json'}: t5 is an encoder with a decoder, which isn't supported; "
        assert str(refused.value).startswith(expected)

    def test_an_architecture_that_transformers_has_no_code_for(self, bert: Path) -> None:
        config = json.loads((bert / "config.json").read_text())
        write_files(bert, {"config.json": config | {"model_type": "unheard-of"}})

        with pytest.raises(CheckpointError) as refused:
            open_folder(bert)

        expected = f"{bert / 'config.json'}: the installed transformers has no code for the model_type 'unheard-of'; "
        assert str(refused.value).startswith(expected)

    def test_code_that_a_folder_brings_along_which_is_never_run(self, bert: Path) -> None:
        config = json.loads((bert / "config.json").read_text())
        auto_map = {"AutoConfig": "modeling_mine.Config", "AutoModel": "modeling_mine.Model"}
        files = {
            "config.json": config | {"model_type": "mine", "auto_map": auto_map},
            "modeling_mine.py": f"open({str(bert / 'was run')!r}, 'w').close()\nclass Config: ...\nclass Model: ...\n",
        }
        write_files(bert, files)

        with pytest.raises(CheckpointError) as refused:
            open_folder(bert)

        assert str(refused.value).startswith(f"{bert / 'config.json'}: needs remote code (modeling_mine.Mod")
        assert not (bert / "was run").exists()

    @pytest.mark.parametrize("activation", ["torch.nn.NoSuchThing", "torch.nn.functional.relu"])
    def test_an_activation_that_torch_does_not_have(
        self, activation: str, bare: Callable[[str], Path], tmp_path: Path
    ) -> None:
        folder = self.with_dense(tmp_path, bare("bert"), {"activation_function": activation})

        with pytest.raises(CheckpointError) as refused:
            open_folder(folder)

        expected = f"{folder / '2_Dense/config.json'}: the activation {activation} isn't supported, only torch.nn's "
        assert str(refused.value).startswith(expected)

    @pytest.mark.parametrize("activation", ["torch.nn.Linear", "torch.nn.Module"])
    def test_an_activation_that_is_none(self, activation: str, bare: Callable[[str], Path], tmp_path: Path) -> None:
        folder = self.with_dense(tmp_path, bare("bert"), {"activation_function": activation})

        with pytest.raises(CheckpointError) as refused:
            open_folder(folder)

        assert str(refused.value).startswith(str(folder / "2_Dense"))

    @pytest.mark.parametrize("change", [{"out_features": 5}, {"bias": False}])
    def test_a_dense_layer_with_weights_of_another_shape(
        self, change: dict[str, object], bare: Callable[[str], Path], tmp_path: Path
    ) -> None:
        folder = self.with_dense(tmp_path, bare("bert"), change)

        with pytest.raises(CheckpointError) as refused:
            open_folder(folder)

        assert str(refused.value).startswith(f"{folder / '2_Dense' / 'model.safetensors'}: ")

    def test_a_dense_layer_with_truncated_weights(self, bare: Callable[[str], Path], tmp_path: Path) -> None:
        folder = self.with_dense(tmp_path, bare("bert"), {})
        file = folder / "2_Dense" / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1])

        with pytest.raises(CheckpointError) as refused:
            open_folder(folder)

        assert str(refused.value).startswith(f"{file}: ")

    def with_dense(self, folder: Path, transformer: Path, change: dict[str, object]) -> Path:
        """Write a sentence model with a Dense layer and change its file."""
        write_sentence_model(folder, transformer, Pooling(HIDDEN, "mean"), dense(HIDDEN, 12))
        config = json.loads((folder / "2_Dense" / "config.json").read_text())
        return write_files(folder, {"2_Dense/config.json": config | change})
