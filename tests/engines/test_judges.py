"""Rerankers that say yes or no, on every engine: the score is what their page computes, one pair at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from checkpoints import FAMILIES, lay, make_tokenizer, write_transformer
from conftest import ENGINES
from texts import varied_texts
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from nearfar.engines import EngineOrder, installed_engines
from nearfar.errors import CheckpointError
from nearfar.models.recipe import read_recipe
from nearfar.models.tokens import Tokens

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 400
QUERY = "a question? {document} the fox"
DOCUMENTS = [*varied_texts(12), "x", "{query}"]
MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
    {
        "idx": 1,
        "name": "1",
        "path": "1_LogitScore",
        "type": "sentence_transformers.cross_encoder.modules.logit_score.LogitScore",
    },
]


def write_judge(folder: Path, *, tied: bool) -> Path:
    tokenizer = make_tokenizer("bytes", "left")
    tokenizer.add_tokens(["yes", "no", "<|im_start|>", "<|im_end|>", "<think>", "</think>"])
    tokenizer.model_max_length = LIMIT
    options = FAMILIES["qwen3"].config | {"max_position_embeddings": LIMIT, "tie_word_embeddings": tied}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **options, vocab_size=len(tokenizer)))
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def as_the_page_does(folder: Path, *, no: bool = True) -> list[float]:
    """Put each pair into the chat, cut it, and compare the last position's logits of yes and no."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    before = tokenizer(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
        add_special_tokens=False,
    ).input_ids
    after = tokenizer("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", add_special_tokens=False).input_ids
    instruction = "Given a web search query, retrieve relevant passages that answer the query"
    scores = []
    for document in DOCUMENTS:
        text = f"<Instruct>: {instruction}\n<Query>: {QUERY}\n<Document>: {document}"
        ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids[: LIMIT - len(before) - len(after)]
        with torch.no_grad():
            logits = model(torch.tensor([before + ids + after])).logits[0, -1]
        yes, other = (logits[tokenizer.convert_tokens_to_ids(word)].item() for word in ("yes", "no"))
        scores.append(yes - other if no else yes)
    return scores


def scores_of(folder: Path, engine: str, name: str = "") -> np.ndarray[Any, Any]:
    recipe = read_recipe(folder, name=name)
    tokens = Tokens(folder, recipe)
    order = EngineOrder(folder=folder, recipe=recipe, device="cpu", dtype="float32", probes=tokens.probes())
    return installed_engines()[engine].open(order).score(tokens.encode_pairs(QUERY, DOCUMENTS, None))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_the_score_is_the_logit_of_yes_less_that_of_no(engine: str, *, tied: bool, tmp_path: Path) -> None:
    folder = write_judge(tmp_path / "Qwen3-Reranker-tiny", tied=tied)
    expected = as_the_page_does(folder)

    scores = scores_of(folder, engine)

    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-3)
    assert np.std(expected) > 0.1


@pytest.mark.skipif("mlx" not in ENGINES, reason="mlx isn't installed")
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_quantised_words_are_those_that_are_compared(*, tied: bool, tmp_path: Path) -> None:
    """With 8 bits the scores stay near; and the folder is known for what it is under any name."""
    from nearfar.engines.mlx.quantizing import Way, quantize_folder

    folder = write_judge(tmp_path / "Qwen3-Reranker-tiny", tied=tied)
    recipe = read_recipe(folder)
    probes = Tokens(folder, recipe).probes()
    order = EngineOrder(folder=folder, recipe=recipe, device="cpu", dtype="float32", probes=probes)

    made = quantize_folder(order, tmp_path / "mine", Way(bits=8, group_size=32))
    scores, again = (scores_of(tmp_path / "mine", "mlx") for _ in range(2))

    np.testing.assert_array_equal(scores, again)
    assert np.corrcoef(scores, as_the_page_does(folder))[0, 1] > 0.999
    assert made.loss.worst < 0.05


@pytest.mark.parametrize("engine", ENGINES)
def test_a_classifier_made_of_it_is_asked_the_same_question(engine: str, tmp_path: Path) -> None:
    """As the converted checkpoints are: the head holds the difference of the two rows."""
    folder = write_judge(tmp_path / "Qwen3-Reranker-tiny", tied=True)
    expected = as_the_page_does(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    yes, no = (AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(word) for word in ("yes", "no"))
    model.config.num_labels = 1
    classifier = AutoModelForSequenceClassification.from_config(model.config)
    classifier.model.load_state_dict(model.model.state_dict())
    rows = model.lm_head.weight
    classifier.score.weight = torch.nn.Parameter((rows[yes] - rows[no])[None].detach())
    classifier.save_pretrained(tmp_path / "Qwen3-Reranker-tiny-seq-cls")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "Qwen3-Reranker-tiny-seq-cls")

    scores = scores_of(tmp_path / "Qwen3-Reranker-tiny-seq-cls", engine)

    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_tokens_are_those_that_logit_score_names(engine: str, tmp_path: Path) -> None:
    folder = write_judge(tmp_path / "mine", tied=True)
    yes = Tokens(folder, read_recipe(folder, name="Qwen/Qwen3-Reranker-0.6B"))
    assert yes.max_tokens == LIMIT
    token = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("yes")
    lay(folder, {"modules.json": MODULES, "1_LogitScore/config.json": {"true_token_id": token}})

    scores = scores_of(folder, engine, "Qwen/Qwen3-Reranker-0.6B")

    np.testing.assert_allclose(scores, as_the_page_does(folder, no=False), rtol=0, atol=1e-3)


def test_another_model_that_answers_is_refused(tmp_path: Path) -> None:
    folder = write_judge(tmp_path / "zerank", tied=True)
    lay(folder, {"modules.json": MODULES, "1_LogitScore/config.json": {"true_token_id": 5}})

    with pytest.raises(CheckpointError, match="how a pair is put to it isn't known: it has no chat template"):
        read_recipe(folder)


def test_another_kind_of_model_is_not_asked_whatever_its_name(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "bert-like-qwen3-reranker", "bert", labels=1)

    assert read_recipe(folder).judge is None


def test_a_vocabulary_without_yes_and_no_is_refused(tmp_path: Path) -> None:
    folder = write_judge(tmp_path / "q", tied=True)
    make_tokenizer("bytes").save_pretrained(folder)

    with pytest.raises(CheckpointError, match="the tokenizer has no tokens yes and no"):
        read_recipe(folder, name="Qwen3-Reranker-0.6B")


def test_a_document_s_own_limit_is_kept(tmp_path: Path) -> None:
    folder = write_judge(tmp_path / "Qwen3-Reranker-tiny", tied=True)
    tokens = Tokens(folder, read_recipe(folder))

    whole, cut = (tokens.encode_pairs("fox", ["word " * 20], limit)[0] for limit in (None, 7))

    [empty] = tokens.encode_pairs("fox", [""], None)
    assert len(empty.ids) + 7 == len(cut.ids)
    assert len(whole.ids) - len(cut.ids) == cut.cut
