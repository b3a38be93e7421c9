"""Rerankers that answer yes or no, on every engine: the score is what their page computes, one pair at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from checkpoints import make_tokenizer, write_files, write_transformer
from conftest import ENGINES
from llm_reranker_models import (
    DOCUMENTS,
    INSTRUCTION,
    LOGIT_SCORE,
    PLAIN_CHAT,
    QUERY,
    RERANKERS,
    open_llm_reranker,
    reference_prompt,
    reference_scores,
    write_converted_classifier,
    write_llm_reranker,
)
from transformers import AutoTokenizer

from nearfar.core.errors import CheckpointError, EngineUnavailable, InputError
from nearfar.engines.transformer.loading import load_transformer
from nearfar.models.reading.reader import read_recipe

if TYPE_CHECKING:
    from pathlib import Path

LONG = "word " * 300


class TestScores:
    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
    @pytest.mark.parametrize("judge", RERANKERS)
    def test_are_what_the_page_computes(self, judge: str, engine: str, *, tied: bool, tmp_path: Path) -> None:
        folder = write_llm_reranker(tmp_path, judge, tied=tied)
        expected = reference_scores(folder, judge)

        scores = open_llm_reranker(folder, engine).scores(DOCUMENTS)

        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)
        assert np.std(expected) > 0.1

    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize("judge", RERANKERS)
    def test_follow_the_instruction_of_a_request(self, judge: str, engine: str, tmp_path: Path) -> None:
        folder = write_llm_reranker(tmp_path, judge)
        expected = reference_scores(folder, judge, INSTRUCTION)
        opened = open_llm_reranker(folder, engine)

        scores = opened.scores(DOCUMENTS, INSTRUCTION)

        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)
        assert np.abs(scores - opened.scores(DOCUMENTS)).max() > 1e-2

    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize("judge", RERANKERS)
    def test_of_a_classifier_made_of_it_are_the_same(self, judge: str, engine: str, tmp_path: Path) -> None:
        """As in converted checkpoints: the head is the row of yes, minus the row of no where that counts."""
        folder = write_llm_reranker(tmp_path, judge)
        expected = reference_scores(folder, judge)
        twin = write_converted_classifier(folder, judge)

        scores = open_llm_reranker(twin, engine).scores(DOCUMENTS)

        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)

    @pytest.mark.skipif("mlx" not in ENGINES, reason="mlx isn't installed")
    @pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
    def test_of_quantised_words_stay_near(self, *, tied: bool, tmp_path: Path) -> None:
        """And the folder is known for what it is under any name."""
        from nearfar.engines.mlx.quantization import QuantizationOptions, quantize_folder

        folder = write_llm_reranker(tmp_path, "qwen3-reranker", tied=tied)
        opened = open_llm_reranker(folder, "mlx")

        made = quantize_folder(opened.request, tmp_path / "mine", QuantizationOptions(bits=8, group_size=32))
        scores, again = (open_llm_reranker(tmp_path / "mine", "mlx").scores(DOCUMENTS) for _ in range(2))

        np.testing.assert_array_equal(scores, again)
        assert np.corrcoef(scores, reference_scores(folder, "qwen3-reranker"))[0, 1] > 0.99
        assert made.loss.worst < 0.3
        assert made.loss.order > 0.98


class TestHeads:
    @pytest.mark.parametrize("no", [True, False])
    @pytest.mark.parametrize("engine", ["torch", "openvino"])
    def test_a_cap_on_the_logits_is_kept(self, engine: str, *, no: bool, tmp_path: Path) -> None:
        """Gemma 2's caps the logits of all words at 30, here at 3."""
        if engine not in ENGINES:
            pytest.skip("not installed")
        folder = write_llm_reranker(tmp_path, "gemma2")
        yes, other = (AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(word) for word in ("yes", "no"))
        write_files(
            folder,
            LOGIT_SCORE
            | {"1_LogitScore/config.json": {"true_token_id": yes} | ({"false_token_id": other} if no else {})},
        )
        write_files(folder, {"chat_template.jinja": PLAIN_CHAT})
        opened = open_llm_reranker(folder, engine)

        scores = opened.scores(DOCUMENTS)

        expected = reference_scores(folder, "gemma2", no=no)
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)
        assert np.abs(expected).max() > 2

    def test_what_is_not_known_of_a_head_is_refused(self, tmp_path: Path) -> None:
        """MiniCPM3 divides what its logits are made of by a number of its own."""
        folder = write_llm_reranker(tmp_path, "minicpm3")
        write_files(folder, LOGIT_SCORE | {"1_LogitScore/config.json": {"true_token_id": 300, "false_token_id": 301}})
        write_files(folder, {"chat_template.jinja": PLAIN_CHAT})
        order = open_llm_reranker(folder, None).request

        with pytest.raises(
            EngineUnavailable, match="MiniCPM3ForCausalLM scales its logits in a way that isn't supported"
        ):
            load_transformer(order, torch.float32)

    def test_a_word_past_the_vocabulary_is_refused(self, tmp_path: Path) -> None:
        folder = write_llm_reranker(tmp_path, "qwen3-reranker")
        write_files(folder, LOGIT_SCORE | {"1_LogitScore/config.json": {"true_token_id": 5000}})
        write_files(folder, {"chat_template.jinja": PLAIN_CHAT})

        with pytest.raises(CheckpointError, match="the answer is token 5000, but the vocabulary has"):
            open_llm_reranker(folder, "torch")


class TestWhichAreKnown:
    def test_another_kind_of_model_is_not_asked_whatever_its_name(self, tmp_path: Path) -> None:
        folder = write_transformer(tmp_path / "bert-like-qwen3-reranker", "bert", labels=1)

        assert read_recipe(folder).llm_reranker is None

    @pytest.mark.parametrize(("judge", "words"), [("qwen3-reranker", "yes and no"), ("bge-reranker-v2-gemma", "Yes")])
    def test_a_vocabulary_without_the_words_is_refused(self, judge: str, words: str, tmp_path: Path) -> None:
        folder = write_llm_reranker(tmp_path, judge)
        make_tokenizer("bytes").save_pretrained(folder)

        with pytest.raises(CheckpointError, match=f"its tokenizer has no single tokens for {words}"):
            read_recipe(folder)


class TestTexts:
    @pytest.mark.parametrize("judge", RERANKERS)
    def test_lie_in_the_model_as_the_page_lays_them(self, judge: str, tmp_path: Path) -> None:
        """The end of a line and a question mark before it are one token, unless each text is tokenised by itself."""
        folder = write_llm_reranker(tmp_path, judge)
        opened = open_llm_reranker(folder, None)

        for text in ("ends with a question?", "two\n\n", "", "{document} {query}"):
            [row] = opened.tokens.encode_pairs(text or QUERY, [text], None)
            assert reference_prompt(folder, judge, text or QUERY, text) == row.ids

    @pytest.mark.parametrize("judge", RERANKERS)
    def test_over_the_limit_lose_the_end_of_the_document(self, judge: str, tmp_path: Path) -> None:
        folder = write_llm_reranker(tmp_path, judge)
        tokens = open_llm_reranker(folder, None).tokens

        [row] = tokens.encode_pairs(QUERY, [LONG], None)

        assert reference_prompt(folder, judge, QUERY, LONG) == row.ids
        assert len(row.ids) == tokens.max_tokens
        assert row.truncated_tokens > 0

    @pytest.mark.parametrize("judge", RERANKERS)
    @pytest.mark.parametrize("words", [100, 280, 900])
    def test_with_a_long_query_are_cut_as_on_the_page(self, judge: str, words: int, tmp_path: Path) -> None:
        folder = write_llm_reranker(tmp_path, judge)
        tokens = open_llm_reranker(folder, None).tokens
        query = "fox " * words

        for document in (LONG, "x"):
            [row] = tokens.encode_pairs(query, [document], None)
            whole = len(tokens.encode_pairs("", [""], None)[0].ids) + row.token_count

            assert reference_prompt(folder, judge, query, document) == row.ids
            assert whole - row.truncated_tokens == len(row.ids) <= tokens.max_tokens

    @pytest.mark.parametrize("judge", RERANKERS)
    def test_of_a_document_keep_to_its_own_limit(self, judge: str, tmp_path: Path) -> None:
        tokens = open_llm_reranker(write_llm_reranker(tmp_path, judge), None).tokens

        whole, cut = (tokens.encode_pairs("fox", ["word " * 20], limit)[0] for limit in (None, 7))

        [empty] = tokens.encode_pairs("fox", [""], None)
        assert len(empty.ids) + 7 == len(cut.ids)
        assert len(whole.ids) - len(cut.ids) == cut.truncated_tokens

    @pytest.mark.parametrize("judge", RERANKERS)
    def test_an_instruction_without_end_is_refused(self, judge: str, tmp_path: Path) -> None:
        tokens = open_llm_reranker(write_llm_reranker(tmp_path, judge), None).tokens

        with pytest.raises(InputError, match="the instruction leaves no room for text in the model's 400 tokens"):
            tokens.encode_pairs("fox", ["x"], None, LONG)
