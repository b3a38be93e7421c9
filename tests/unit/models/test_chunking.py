"""A text that is too long is split into chunks: nothing twice, nothing lost, each as long as fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest
from checkpoints import CORPUS, Words, make_tokenizer

from nearfar.core.types import KeepSide
from nearfar.models.hub.checkpoint import find_builtin
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.chunking import Chunking, TokenBudget
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from pathlib import Path

KEEP = get_args(KeepSide)
KINDS: tuple[Words, ...] = get_args(Words)
TEXTS = (
    *CORPUS,
    "unzerschneidbarkeitsvermutung " * 3,
    "   leading and trailing   ",
    "안녕하세요, 세계 " * 20,
    "👩‍👩‍👧‍👦🏳️‍🌈👍🏽",
    "  素早い茶色の狐 🦊 и лиса",
    "[CLS] a text that [SEP] names <s> special </s> tokens [PAD] <pad> itself [UNK]",
    "e\u0301 and é, \ufb01 and fi, \u200b and \ufeff, \u0000",
    "x",
    " ",
)
RECIPE = Recipe(architecture="BertModel", model_type="bert", task="embed", max_tokens=48, hidden_size=8)
WORDS = ["quick", "brown", "jumps", "over", "lazy", "while", "slow", "turtle", "sleeps"]  # a token each


@pytest.fixture(scope="module", params=["builtin", *KINDS])
def tokens(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    if request.param == "builtin":
        return TextEncoder(find_builtin().folder, RECIPE)
    return open_tokenizer(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    return open_tokenizer("pieces", tmp_path_factory.mktemp("words"))


def open_tokenizer(kind: Words, folder: Path) -> TextEncoder:
    make_tokenizer(kind).save_pretrained(folder)
    return TextEncoder(folder, RECIPE)


def budget_of(tokens: TextEncoder, size: int) -> TokenBudget:
    return tokens.budget_after_prompt("")._replace(max_tokens=size)


@pytest.mark.parametrize("keep", KEEP)
@pytest.mark.parametrize("size", [8, 9, 16])
def test_chunks_joined_are_the_text_and_each_fits(size: int, keep: KeepSide, tokens: TextEncoder) -> None:
    budget = budget_of(tokens, size)

    for text in TEXTS:
        found = tokens.chunk(text, budget, Chunking(max_chunks=1000, keep=keep))

        assert text == "".join(found.texts)
        assert 0 == found.truncated_tokens
        assert all(budget.count(chunk) <= size for chunk in found.texts)


@pytest.mark.parametrize("keep", KEEP)
def test_chunks_joined_are_the_text_even_if_a_character_does_not_fit(keep: KeepSide, tokens: TextEncoder) -> None:
    for text in TEXTS:
        found = tokens.chunk(text, budget_of(tokens, 1), Chunking(max_chunks=1000, keep=keep))

        assert text == "".join(found.texts)
        assert all(found.texts)


@pytest.mark.parametrize(
    ("how", "expected", "cut"),
    [
        (Chunking(max_chunks=2), ["quick brown", " jumps over"], 5),
        (Chunking(max_chunks=2, keep="end"), [" slow turtle", " sleeps ."], 6),
        (Chunking(max_chunks=9, max_tokens=3), ["quick brown", " jumps"], 6),
        (Chunking(max_chunks=9, max_tokens=3, keep="end"), [" turtle", " sleeps ."], 7),
        (Chunking(max_chunks=1, max_tokens=1), ["quick"], 8),
        (Chunking(keep="end"), [" sleeps ."], 8),
    ],
)
def test_a_chunk_is_as_long_as_fits(how: Chunking, expected: list[str], cut: int, words: TextEncoder) -> None:
    text = " ".join(WORDS) + (" ." if how.keep == "end" else "")

    found = words.chunk(text, budget_of(words, 2), how)

    assert expected == found.texts
    assert (len(text.split()), cut) == (found.token_count, found.truncated_tokens)


def test_a_chunk_with_more_tokens_alone_ends_earlier(words: TextEncoder) -> None:
    """The end of a word has other tokens at the start of a chunk."""
    text = "sleeping " * 4
    budget = budget_of(words, 3)

    found = words.chunk(text, budget, Chunking(max_chunks=100))

    assert text == "".join(found.texts)
    assert max(map(budget.count, found.texts)) <= 3


@pytest.mark.parametrize("keep", KEEP)
def test_a_huge_text_is_tokenized_no_further_than_needed(keep: KeepSide, words: TextEncoder) -> None:
    text = "quick " * 100_000

    some = words.chunk(text, budget_of(words, 40), Chunking(max_chunks=10, keep=keep))
    most = words.chunk(text, budget_of(words, 40), Chunking(max_chunks=1000, keep=keep))

    assert [10, 1000] == [len(some.texts), len(most.texts)]
    assert 10 * 40 == len("".join(some.texts).split())
    assert some.token_count < most.token_count == 100_000
    assert 60_000 == most.truncated_tokens
