"""Text becomes the ids that transformers itself would give, cut where it would cut."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pytest
from checkpoints import lay, make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from transformers import AutoTokenizer

from nearfar.core.errors import CheckpointError, InvalidTokenIds
from nearfar.models.hub.checkpoint import find_builtin
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.row import Row
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KINDS = ("builtin", "pieces", "pieces-roberta", "bytes", "bytes-roberta", "bytes-start", "bytes-end", "unigrams")
WITH_PAIRS = ("builtin", "pieces", "pieces-roberta", "bytes-roberta", "unigrams")  # what rerankers are built on
TEXTS = (
    "the quick brown fox",
    "Der schnelle  Fuchs\tspringt über\nden Hund. ",
    "  素早い茶色の狐 🦊 и лиса",
    "[CLS] a text that [SEP] names <s> special </s> tokens [PAD] <pad> itself [UNK]",
    "unzerschneidbarkeitsvermutung " * 3,
    "e\u0301 and é, \ufb01 and fi, \u200b and \ufeff, \u0000",
    "x",
)
QUERY, DOCUMENT = "what does the quick fox do?", "the quick brown fox jumps over the lazy dog, again and again"


def recipe(task: Literal["embed", "score"] = "embed", max_tokens: int = 48) -> Recipe:
    return Recipe(
        architecture="BertModel", model_type="bert", task=task, max_tokens=max_tokens, hidden_size=8, type_ids=True
    )


class Case:
    """A tokenizer's folder, opened by transformers, and by us once for every limit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.theirs: Any = AutoTokenizer.from_pretrained(folder)
        self._ours: dict[tuple[str, int], TextEncoder] = {}

    def ours(self, task: Literal["embed", "score"] = "embed", max_tokens: int = 512) -> TextEncoder:
        if (task, max_tokens) not in self._ours:
            self._ours[task, max_tokens] = TextEncoder(self.folder, recipe(task, max_tokens))
        return self._ours[task, max_tokens]

    def length(self, *texts: str, special: bool = True) -> int:
        return len(self.theirs(*texts, add_special_tokens=special, verbose=False)["input_ids"])


def bare(row: Row, case: Case) -> list[int]:
    """Give a row's ids without the special tokens around them, which must be those of any text."""
    whole, inside = (case.theirs("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    start = whole.index(inside[0])
    stop = len(whole) - start - len(inside)
    assert whole[:start] == row.ids[:start]
    assert whole[start + len(inside) :] == row.ids[len(row.ids) - stop :]
    return row.ids[start : len(row.ids) - stop]


@pytest.fixture(scope="module")
def case_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    cases: dict[str, Case] = {}

    def opened(kind: str) -> Case:
        if kind == "builtin":
            return cases.setdefault(kind, Case(find_builtin().folder))
        if kind not in cases:
            folder = tmp_path_factory.mktemp(kind)
            make_tokenizer(kind).save_pretrained(folder)  # type: ignore[arg-type]  # KINDS are its words
            cases[kind] = Case(folder)
        return cases[kind]

    return opened


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, case_of: Callable[[str], Case]) -> Case:
    return case_of(request.param)


@pytest.fixture(params=WITH_PAIRS)
def pair_case(request: pytest.FixtureRequest, case_of: Callable[[str], Case]) -> Case:
    return case_of(request.param)


class TestSingle:
    @pytest.mark.parametrize("text", TEXTS)
    def test_ids_are_those_of_transformers(self, text: str, case: Case) -> None:
        expected = case.theirs(text)["input_ids"]

        (row,) = case.ours().encode([text])

        assert expected == row.ids

    @pytest.mark.parametrize("over", [-1, 0, 1, 3])
    @pytest.mark.parametrize("text", TEXTS[:-1])
    def test_a_text_at_the_limit_is_cut_where_transformers_cuts_it(self, text: str, over: int, case: Case) -> None:
        limit = case.length(text) - over
        expected = case.theirs(text, truncation=True, max_length=limit)["input_ids"]

        (row,) = case.ours(max_tokens=limit).encode([text])

        assert expected == row.ids
        assert max(0, over) == row.truncated_tokens

    @pytest.mark.parametrize("text", TEXTS)
    def test_content_and_cut_count_the_text_and_nothing_else(self, text: str, case: Case) -> None:
        content = case.length(text, special=False)
        special = case.length(text) - content

        (whole,) = case.ours().encode([text])
        (cut,) = case.ours(max_tokens=special + 1).encode([text])

        assert (content, 0) == (whole.token_count, whole.truncated_tokens)
        assert (content, content - 1) == (cut.token_count, cut.truncated_tokens)

    def test_many_texts_give_what_each_gives_alone(self, case: Case) -> None:
        tokens = case.ours(max_tokens=16)

        together = tokens.encode(TEXTS)

        assert [tokens.encode([text])[0] for text in TEXTS] == together

    def test_no_texts_give_nothing(self, case: Case) -> None:
        assert [] == case.ours().encode([])

    def test_an_empty_text_is_its_special_tokens_alone(self, case: Case) -> None:
        expected = case.theirs("")["input_ids"]

        (row,) = case.ours().encode([""])

        assert Row(expected, None, 0, 0) == row

    @pytest.mark.parametrize("text", TEXTS)
    def test_a_prompt_is_put_before_the_text(self, text: str, case: Case) -> None:
        expected = case.theirs("Search: " + text)["input_ids"]

        (row,) = case.ours().encode([text], "Search: ")

        assert expected == row.ids

    def test_a_prompt_counts_as_content(self, case: Case) -> None:
        (row,) = case.ours().encode(["the fox"], "Search: ")

        assert case.length("Search: the fox", special=False) == row.token_count

    @pytest.mark.parametrize(("expected", "limit"), [(3, 3), (1, 1), (12, None), (12, 1000)])
    def test_a_smaller_limit_keeps_that_many_tokens_of_the_text(
        self, expected: int, limit: int | None, case: Case
    ) -> None:
        special = case.length("x") - case.length("x", special=False)
        (whole,) = case.ours().encode([DOCUMENT])

        (row,) = case.ours(max_tokens=12 + special).encode([DOCUMENT], max_tokens=limit)

        assert (whole.token_count, whole.token_count - expected) == (row.token_count, row.truncated_tokens)
        assert expected + special == len(row.ids)

    def test_type_ids_are_left_to_the_model(self, case: Case) -> None:
        rows = case.ours().encode(TEXTS)

        assert [None] * len(TEXTS) == [row.type_ids for row in rows]


class TestKeepingTheEnd:
    @pytest.mark.parametrize("over", [-1, 0, 1, 3])
    @pytest.mark.parametrize("text", TEXTS[:-1])
    def test_a_text_over_the_limit_loses_its_start(self, text: str, over: int, case: Case) -> None:
        content = case.theirs(text, add_special_tokens=False)["input_ids"]
        special = case.length(text) - len(content)
        room = len(content) - over

        (row,) = case.ours(max_tokens=special + room).encode([text], keep="end")

        assert content[max(0, over) :] == bare(row, case)
        assert (len(content), max(0, over)) == (row.token_count, row.truncated_tokens)

    @pytest.mark.parametrize("limit", [4, 5, 8])
    def test_a_prompt_is_kept_whole_and_the_text_behind_it_cut(self, limit: int, case: Case) -> None:
        prompt, text = "find:", " the quick brown fox jumps over the lazy dog"
        before = case.theirs(prompt, add_special_tokens=False)["input_ids"]
        together = case.theirs(prompt + text, add_special_tokens=False)["input_ids"]
        limit += len(before)

        (row,) = case.ours().encode([text], prompt, limit, keep="end")

        assert before + together[len(together) - limit + len(before) :] == bare(row, case)

    def test_a_prompt_over_the_limit_is_cut_itself(self, case_of: Callable[[str], Case]) -> None:
        case = case_of("builtin")

        (row,) = case.ours().encode(["fox " * 9], "the quick brown dog ", 2, keep="end")

        assert case.theirs("the quick", add_special_tokens=False)["input_ids"] == bare(row, case)

    def test_equal_texts_get_one_row(self, case_of: Callable[[str], Case]) -> None:
        first, second = case_of("builtin").ours().encode(["fox dog"] * 2, max_tokens=1, keep="end")

        assert first is second

    @pytest.mark.parametrize("word", ["fox ", "x" * 2000 + " "])
    def test_of_a_huge_text_the_true_end_is_kept(self, word: str, case_of: Callable[[str], Case]) -> None:
        case = case_of("builtin")
        text = word * (500_000 // len(word)) + "the lazy dog"

        (row,) = case.ours(max_tokens=202).encode([text], "find: ", keep="end")

        last = case.theirs(word * 200 + "the lazy dog", add_special_tokens=False, verbose=False)["input_ids"]
        assert case.theirs("find: ", add_special_tokens=False)["input_ids"] + last[-198:] == bare(row, case)


class TestShowing:
    @pytest.mark.parametrize("special", [False, True])
    @pytest.mark.parametrize("text", TEXTS)
    def test_pieces_are_the_ids_and_names_of_transformers(self, text: str, special: bool, case: Case) -> None:
        expected = case.theirs(text, add_special_tokens=special)["input_ids"]

        pieces = case.ours(max_tokens=48).tokenize(text, special=special)

        assert expected == [piece.id for piece in pieces]
        assert case.theirs.convert_ids_to_tokens(expected) == [piece.token for piece in pieces]

    @pytest.mark.parametrize("text", TEXTS)
    def test_pieces_lie_in_the_text_one_after_another(self, text: str, case: Case) -> None:
        pieces = case.ours().tokenize(text, special=False)

        starts = [piece.start for piece in pieces]
        assert sorted(starts) == starts
        assert all(0 <= piece.start <= piece.stop <= len(text) for piece in pieces)

    def test_a_special_token_is_one_only_where_the_tokenizer_put_it(self, case_of: Callable[[str], Case]) -> None:
        pieces = case_of("builtin").ours().tokenize("[SEP] fox", special=True)

        assert [("[CLS]", True), ("[SEP]", False), ("fox", False), ("[SEP]", True)] == [
            (piece.token, piece.special) for piece in pieces
        ]
        assert [(0, 0), (0, 5), (6, 9), (0, 0)] == [(piece.start, piece.stop) for piece in pieces]

    @pytest.mark.parametrize("text", TEXTS)
    def test_ids_become_the_text_that_transformers_makes_of_them(self, text: str, case: Case) -> None:
        ids = case.theirs(text)["input_ids"]

        assert case.theirs.decode(ids, clean_up_tokenization_spaces=False) == case.ours().decode(ids)

    @pytest.mark.parametrize("unknown", [-1, 10**7, 2**32, 2**70])
    def test_an_id_outside_the_vocabulary_is_refused(self, unknown: int, case: Case) -> None:
        with pytest.raises(InvalidTokenIds, match=f"token {unknown} is not in this model's vocabulary"):
            case.ours().decode([1, unknown])


class TestHugeTexts:
    def test_are_read_no_further_than_what_is_enough(self, case_of: Callable[[str], Case]) -> None:
        tokens = case_of("builtin").ours(max_tokens=48)
        (whole,) = tokens.encode(["word " * 19_000])  # under 100,000 characters

        (huge,) = tokens.encode(["word " * 1_000_000])

        assert whole.ids == huge.ids
        assert 20_000 == huge.token_count

    def test_are_read_to_the_end_where_their_beginning_is_not_enough(self, case_of: Callable[[str], Case]) -> None:
        tokens = case_of("builtin").ours(max_tokens=48)

        (counted,) = tokens.encode(["word " * 30_000], count_up_to=25_000)

        assert 30_000 == counted.token_count


class TestPairs:
    @pytest.mark.parametrize("document", [*TEXTS, DOCUMENT])
    def test_ids_and_types_are_those_of_transformers(self, document: str, pair_case: Case) -> None:
        expected = pair_case.theirs(QUERY, document, return_token_type_ids=True)
        types = expected["token_type_ids"]

        (row,) = pair_case.ours("score").encode_pairs(QUERY, [document], None)

        assert expected["input_ids"] == row.ids
        assert (types if any(types) else None) == row.type_ids

    def test_types_tell_query_and_document_apart_where_the_tokenizer_does(self, case_of: Callable[[str], Case]) -> None:
        (bert,) = case_of("pieces").ours("score").encode_pairs("the", ["fox"], None)
        (roberta,) = case_of("bytes-roberta").ours("score").encode_pairs("the", ["fox"], None)

        assert bert.type_ids is not None
        assert ({0, 1}, len(bert.ids)) == (set(bert.type_ids), len(bert.type_ids))
        assert roberta.type_ids is None

    @pytest.mark.parametrize("over", [-1, 0, 1, 3])
    def test_the_document_is_cut_first(self, over: int, pair_case: Case) -> None:
        limit = pair_case.length(QUERY, DOCUMENT) - over
        expected = pair_case.theirs(
            QUERY, DOCUMENT, truncation="only_second", max_length=limit, return_token_type_ids=True
        )

        (row,) = pair_case.ours("score", limit).encode_pairs(QUERY, [DOCUMENT], None)

        assert expected["input_ids"] == row.ids
        assert (expected["token_type_ids"] if any(expected["token_type_ids"]) else None) == row.type_ids
        assert max(0, over) == row.truncated_tokens

    def test_the_query_is_cut_only_past_half_of_the_room(self, pair_case: Case) -> None:
        query, document = DOCUMENT, "fox " * 40
        asked, answer = (
            pair_case.theirs(text, add_special_tokens=False, verbose=False)["input_ids"] for text in (query, document)
        )
        special = pair_case.length("x", "x") - 2 * pair_case.length("x", special=False)
        half = 5

        (row,) = pair_case.ours("score", special + 2 * half).encode_pairs(query, [document], None)

        kept = [at for at in row.ids if at not in pair_case.theirs.all_special_ids]
        assert asked[:half] + answer[:half] == kept
        assert len(asked) + len(answer) == row.token_count
        assert len(asked) + len(answer) - 2 * half == row.truncated_tokens

    def test_counts_are_of_both_texts_and_no_special_tokens(self, pair_case: Case) -> None:
        (row,) = pair_case.ours("score").encode_pairs(QUERY, [DOCUMENT], None)

        content = pair_case.length(QUERY, special=False) + pair_case.length(DOCUMENT, special=False)
        assert (content, 0) == (row.token_count, row.truncated_tokens)

    def test_a_bound_on_documents_cuts_each_and_not_the_query(self, pair_case: Case) -> None:
        expected = pair_case.theirs.decode(pair_case.theirs(DOCUMENT, add_special_tokens=False)["input_ids"][:3])

        rows = pair_case.ours("score").encode_pairs(QUERY, [DOCUMENT, expected], 3)

        assert rows[0].ids == rows[1].ids
        assert (pair_case.length(DOCUMENT, special=False) - 3, 0) == (
            rows[0].truncated_tokens,
            rows[1].truncated_tokens,
        )

    def test_many_documents_give_what_each_gives_alone(self, pair_case: Case) -> None:
        tokens = pair_case.ours("score", 24)

        together = tokens.encode_pairs(QUERY, TEXTS, None)

        assert [tokens.encode_pairs(QUERY, [text], None)[0] for text in TEXTS] == together

    def test_an_embedding_model_takes_no_pairs(self, pair_case: Case) -> None:
        tokens = pair_case.ours("embed")

        with pytest.raises(TypeError, match="takes single texts"):
            tokens.encode_pairs(QUERY, [DOCUMENT], None)


class TestThreads:
    """Every method may be called from several threads at once."""

    def test_eight_threads_get_the_single_texts_that_one_gets(self, case_of: Callable[[str], Case]) -> None:
        tokens = case_of("builtin").ours(max_tokens=24)
        calls = [([*islice(cycle(TEXTS), at % 7, at % 7 + 3)], at % 20 or None) for at in range(2400)]
        expected = [tokens.encode(texts, max_tokens=limit) for texts, limit in calls]

        with ThreadPoolExecutor(8) as threads:
            rows = list(threads.map(lambda call: tokens.encode(call[0], max_tokens=call[1]), calls))

        assert expected == rows

    def test_eight_threads_get_the_pairs_that_one_gets(self, case_of: Callable[[str], Case]) -> None:
        tokens = case_of("builtin").ours("score", 24)
        calls = [(TEXTS[at % 7], TEXTS[at % 5 : at % 5 + 3], at % 20 or None) for at in range(2400)]
        expected = [tokens.encode_pairs(*call) for call in calls]

        with ThreadPoolExecutor(8) as threads:
            rows = list(threads.map(lambda call: tokens.encode_pairs(*call), calls))

        assert expected == rows


class SingleCall(NamedTuple):
    kind: str
    texts: list[str]
    prompt: str
    max_tokens: int
    limit: int | None


class PairCall(NamedTuple):
    kind: str
    query: str
    document: str
    max_tokens: int
    limit: int | None


SINGLE_CALLS = st.builds(
    SingleCall,
    kind=st.sampled_from(KINDS),
    texts=st.lists(st.text(max_size=60), min_size=1, max_size=3),
    prompt=st.text(max_size=5),
    max_tokens=st.sampled_from([4, 5, 11, 40]),
    limit=st.none() | st.integers(1, 50),
)
PAIR_CALLS = st.builds(
    PairCall,
    kind=st.sampled_from(WITH_PAIRS),
    query=st.text(max_size=60),
    document=st.text(max_size=60),
    max_tokens=st.sampled_from([6, 7, 12, 40]),
    limit=st.none() | st.integers(1, 50),
)


class TestAnyText:
    """No text, however odd, goes over the limit or is miscounted."""

    @settings(max_examples=200, deadline=None)
    @given(call=SINGLE_CALLS)
    def test_single(self, call: SingleCall, case_of: Callable[[str], Case]) -> None:
        case = case_of(call.kind)
        special = case.length("x") - case.length("x", special=False)

        rows = case.ours(max_tokens=call.max_tokens).encode(call.texts, call.prompt, call.limit)

        assert len(call.texts) == len(rows)
        for text, row in zip(call.texts, rows, strict=True):
            assert len(row.ids) <= call.max_tokens
            assert row.token_count - row.truncated_tokens == len(row.ids) - special
            assert row.token_count - row.truncated_tokens <= (call.limit or call.max_tokens)
            assert case.length(call.prompt + text, special=False) == row.token_count

    @settings(max_examples=200, deadline=None)
    @given(call=PAIR_CALLS)
    def test_pairs(self, call: PairCall, case_of: Callable[[str], Case]) -> None:
        case = case_of(call.kind)
        special = case.length("x", "x") - 2 * case.length("x", special=False)

        (row,) = case.ours("score", call.max_tokens).encode_pairs(call.query, [call.document], call.limit)

        assert len(row.ids) <= call.max_tokens
        assert row.token_count - row.truncated_tokens == len(row.ids) - special
        content = case.length(call.query, special=False) + case.length(call.document, special=False)
        assert content == row.token_count
        assert row.type_ids is None or len(row.ids) == len(row.type_ids)


class TestOpening:
    @pytest.mark.parametrize("kind", ["bytes-roberta", "unigrams", "pieces"])
    def test_lower_casing_comes_before_all_else(self, kind: str, case_of: Callable[[str], Case]) -> None:
        case = case_of(kind)
        texts = [text for text in TEXTS if "[CLS]" not in text]  # special tokens are looked for before lower-casing
        expected = [case.theirs(text.lower())["input_ids"] for text in texts]

        rows = TextEncoder(case.folder, replace(recipe(max_tokens=512), lower_case=True)).encode(texts)

        assert expected == [row.ids for row in rows]

    def test_the_file_s_own_truncation_and_padding_are_off(self, tmp_path: Path) -> None:
        inner = make_tokenizer("pieces").backend_tokenizer
        expected = inner.encode(DOCUMENT).ids
        inner.enable_truncation(5)
        inner.enable_padding(length=300)
        inner.save(str(tmp_path / "tokenizer.json"))

        (row,) = TextEncoder(tmp_path, recipe()).encode([DOCUMENT])

        assert expected == row.ids

    def test_older_files_are_converted_as_transformers_does(self, tmp_path: Path) -> None:
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", "the", "fox", "##s"]
        files = {
            "vocab.txt": "\n".join(words) + "\n",
            "config.json": {"model_type": "bert"},
            "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "do_lower_case": True},
        }
        lay(tmp_path, files)
        expected = [AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] for text in ("The foxs", *TEXTS)]

        rows = TextEncoder(tmp_path, recipe(max_tokens=512)).encode(["The foxs", *TEXTS])

        assert [2, words.index("the"), words.index("fox"), words.index("##s"), 3] == rows[0].ids
        assert expected == [row.ids for row in rows]

    @pytest.mark.parametrize(
        ("kind", "class_name", "option", "value"),
        [
            ("pieces", "BertTokenizer", "do_lower_case", False),
            ("pieces", "BertTokenizer", "strip_accents", False),
            ("bytes-roberta", "RobertaTokenizer", "add_prefix_space", True),
        ],
    )
    def test_where_the_two_files_of_a_tokenizer_disagree_transformers_decides(
        self, kind: str, class_name: str, option: str, value: bool, tmp_path: Path
    ) -> None:
        """It rebuilds such tokenizers from tokenizer_config.json; the model was trained with what it built."""
        make_tokenizer(kind).save_pretrained(tmp_path)  # type: ignore[arg-type]  # a row of the table
        said = json.loads((tmp_path / "tokenizer_config.json").read_text())
        lay(tmp_path, {"tokenizer_config.json": said | {"tokenizer_class": class_name, option: value}})
        lay(tmp_path, {"config.json": {"model_type": class_name.removesuffix("Tokenizer").lower()}})
        text = "Quick fox über mañana"
        expected = AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"]

        (row,) = TextEncoder(tmp_path, recipe()).encode([text])

        assert expected == row.ids

    @pytest.mark.parametrize("content", [b"", b"{", b'{"version": "1.0"}', b"[]", b"\xff"])
    def test_a_damaged_file_is_refused_by_its_name(self, content: bytes, tmp_path: Path) -> None:
        lay(tmp_path, {"tokenizer.json": content})

        with pytest.raises(CheckpointError) as refused:
            TextEncoder(tmp_path, recipe())

        assert str(refused.value).startswith(f"{tmp_path / 'tokenizer.json'}: is damaged: ")

    @pytest.mark.parametrize("model_type", [None, "unheard-of", "bert", "roberta", "xlm-roberta", "mpnet", "qwen2"])
    def test_a_folder_without_any_tokenizer_is_refused(self, model_type: str | None, tmp_path: Path) -> None:
        """Never an empty one made up on the spot, to which every word is unknown."""
        lay(tmp_path, {"config.json": {"model_type": model_type}} if model_type else {})

        with pytest.raises(CheckpointError) as refused:
            TextEncoder(tmp_path, recipe())

        assert str(refused.value).startswith(f"{tmp_path}: has no tokenizer (")

    @pytest.mark.parametrize(
        ("kind", "task", "least"),
        [("pieces", "embed", 3), ("pieces", "score", 4), ("unigrams", "score", 5), ("bytes", "embed", 1)],
    )
    def test_a_limit_without_room_for_text_is_refused(
        self, kind: str, task: Literal["embed", "score"], least: int, case_of: Callable[[str], Case]
    ) -> None:
        folder = case_of(kind).folder

        with pytest.raises(CheckpointError) as refused:
            TextEncoder(folder, recipe(task, least - 1))

        assert f"{folder}: a limit of {least - 1} tokens leaves no room for text" == str(refused.value)
        assert TextEncoder(folder, recipe(task, least)).max_tokens == least

    def test_a_tokenizer_that_knows_no_words_at_all_is_refused(self, tmp_path: Path) -> None:
        from tokenizers import Tokenizer, models

        Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))

        with pytest.raises(CheckpointError, match=r"tokenizer\.json: special tokens that change"):
            TextEncoder(tmp_path, recipe())
