"""Texts and pairs have the same ids as in transformers, and are truncated in the same places."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice, product
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pytest
from checkpoints import make_tokenizer, write_files
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nearfar.core.errors import CheckpointError, InvalidTokenIds
from nearfar.models.hub.checkpoint import find_builtin
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.row import Row
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from pathlib import Path

KINDS = ("builtin", "pieces", "pieces-roberta", "bytes", "bytes-roberta", "bytes-start", "bytes-end", "unigrams")
WITH_PAIRS = ("builtin", "pieces", "pieces-roberta", "bytes-roberta", "unigrams")  # those that rerankers use
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


def read_tokenizer(folder: Path) -> Any:
    """Open the tokenizer with transformers, which takes seconds to import."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


class Case:
    """A tokenizer's folder, opened by transformers, and by TextEncoder once for every limit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reference = read_tokenizer(folder)
        self._encoders: dict[tuple[str, int], TextEncoder] = {}

    def encoder(self, task: Literal["embed", "score"] = "embed", max_tokens: int = 512) -> TextEncoder:
        if (task, max_tokens) not in self._encoders:
            self._encoders[task, max_tokens] = TextEncoder(self.folder, recipe(task, max_tokens))
        return self._encoders[task, max_tokens]

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        ids: list[int] = self.reference(text, add_special_tokens=special, verbose=False)["input_ids"]
        return ids

    def special(self, *texts: str) -> int:
        """Count the special tokens around a text or a pair."""
        return len(self.reference(*texts, verbose=False)["input_ids"]) - sum(len(self.ids(text)) for text in texts)

    def bare(self, row: Row) -> list[int]:
        """Return a row's ids without the special tokens around them, which must be those of any text."""
        whole, inside = self.ids("a", special=True), self.ids("a")
        start = whole.index(inside[0])
        stop = len(row.ids) - (len(whole) - start - len(inside))
        assert whole[:start] + whole[start + len(inside) :] == row.ids[:start] + row.ids[stop:]
        return row.ids[start:stop]


class Wrong(list[tuple[object, ...]]):
    """What differed, and where: a test loops over all tokenizers and texts, and lists the offenders."""

    def compare(self, expected: object, actual: object, *where: object) -> None:
        if expected != actual:
            self.append((*where, expected, actual))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    opened = {"builtin": Case(find_builtin().folder)}
    for kind in KINDS[1:]:
        folder = tmp_path_factory.mktemp(kind)
        make_tokenizer(kind).save_pretrained(folder)  # type: ignore[arg-type]  # KINDS are its words
        opened[kind] = Case(folder)
    return opened


@pytest.fixture
def pair_cases(cases: dict[str, Case]) -> dict[str, Case]:
    return {kind: cases[kind] for kind in WITH_PAIRS}


@pytest.fixture
def builtin(cases: dict[str, Case]) -> Case:
    return cases["builtin"]


class TestSingleTexts:
    @pytest.mark.parametrize("prompt", ["", "Search: "])
    def test_ids_are_those_of_transformers(self, prompt: str, cases: dict[str, Case]) -> None:
        wrong = Wrong()
        for kind, case in cases.items():
            for text in ["", *TEXTS]:
                (row,) = case.encoder().encode([text], prompt)
                expected = Row(case.ids(prompt + text, special=True), None, len(case.ids(prompt + text)), 0)
                wrong.compare(expected, row, kind, text)

        assert not wrong

    def test_a_text_at_the_limit_is_truncated_as_by_transformers(self, cases: dict[str, Case]) -> None:
        wrong = Wrong()
        for kind, case in cases.items():
            for text, excess in product(TEXTS[:-1], (-1, 0, 1, 3)):
                limit = len(case.ids(text, special=True)) - excess
                expected = case.reference(text, truncation=True, max_length=limit)["input_ids"]
                (row,) = case.encoder(max_tokens=limit).encode([text])
                wrong.compare((expected, max(0, excess)), (row.ids, row.truncated_tokens), kind, text, excess)

        assert not wrong

    def test_counts_cover_the_text_without_special_tokens(self, cases: dict[str, Case]) -> None:
        wrong = Wrong()
        for kind, case in cases.items():
            for text in TEXTS:
                count = len(case.ids(text))
                (row,) = case.encoder(max_tokens=case.special(text) + 1).encode([text])
                wrong.compare((count, count - 1), (row.token_count, row.truncated_tokens), kind, text)

        assert not wrong

    def test_many_texts_encode_as_each_does_alone(self, cases: dict[str, Case]) -> None:
        wrong = Wrong()
        for kind, case in cases.items():
            encoder = case.encoder(max_tokens=16)
            wrong.compare([encoder.encode([text])[0] for text in TEXTS], encoder.encode(TEXTS), kind)
            wrong.compare([], encoder.encode([]), kind)

        assert not wrong

    def test_a_smaller_limit_keeps_that_many_tokens_of_the_text(self, cases: dict[str, Case]) -> None:
        wrong = Wrong()
        for kind, case in cases.items():
            special, count = case.special("x"), len(case.ids(DOCUMENT))
            for expected, limit in ((3, 3), (1, 1), (12, None), (12, 1000)):
                (row,) = case.encoder(max_tokens=12 + special).encode([DOCUMENT], max_tokens=limit)
                actual = (row.token_count, row.truncated_tokens, len(row.ids))
                wrong.compare((count, count - expected, expected + special), actual, kind, limit)

        assert not wrong


class TestKeepingTheEnd:
    def test_a_text_over_the_limit_loses_its_start(self, cases: dict[str, Case]) -> None:
        wrong = Wrong()
        for kind, case in cases.items():
            for text, excess in product(TEXTS[:-1], (-1, 0, 1, 3)):
                ids = case.ids(text)
                limit = case.special(text) + len(ids) - excess
                (row,) = case.encoder(max_tokens=limit).encode([text], keep="end")
                actual = (case.bare(row), row.token_count, row.truncated_tokens)
                wrong.compare((ids[max(0, excess) :], len(ids), max(0, excess)), actual, kind, text, excess)

        assert not wrong

    def test_the_prompt_is_kept_whole_and_the_text_after_it_cut(self, cases: dict[str, Case]) -> None:
        prompt, text = "find:", " the quick brown fox jumps over the lazy dog"
        wrong = Wrong()
        for kind, case in cases.items():
            before, together = case.ids(prompt), case.ids(prompt + text)
            for kept in (4, 5, 8):
                (row,) = case.encoder().encode([text], prompt, kept + len(before), keep="end")
                wrong.compare(before + together[len(together) - kept :], case.bare(row), kind, kept)

        assert not wrong

    def test_a_prompt_over_the_limit_is_cut_itself(self, builtin: Case) -> None:
        (row,) = builtin.encoder().encode(["fox " * 9], "the quick brown dog ", 2, keep="end")

        assert builtin.ids("the quick") == builtin.bare(row)

    def test_equal_texts_share_one_row(self, builtin: Case) -> None:
        first, second = builtin.encoder().encode(["fox dog"] * 2, max_tokens=1, keep="end")

        assert first is second

    @pytest.mark.parametrize("word", ["fox ", "x" * 2000 + " "])
    def test_the_true_end_of_a_huge_text_is_kept(self, word: str, builtin: Case) -> None:
        text = word * (500_000 // len(word)) + "the lazy dog"

        (row,) = builtin.encoder(max_tokens=202).encode([text], "find: ", keep="end")

        assert builtin.ids("find: ") + builtin.ids(word * 200 + "the lazy dog")[-198:] == builtin.bare(row)


class TestTokenize:
    def test_tokens_are_those_of_transformers_in_the_texts_order(self, cases: dict[str, Case]) -> None:
        wrong = Wrong()
        for kind, case in cases.items():
            for text, special in product(TEXTS, (False, True)):
                expected = case.ids(text, special=special)
                tokens = case.encoder(max_tokens=48).tokenizer.tokenize(text, special=special)
                wrong.compare(expected, [token.id for token in tokens], kind, text)
                wrong.compare(
                    case.reference.convert_ids_to_tokens(expected), [token.token for token in tokens], kind, text
                )
                starts = [token.start for token in tokens if not token.special]
                in_order = starts == sorted(starts) and all(0 <= at.start <= at.stop <= len(text) for at in tokens)
                wrong.compare(True, in_order, kind, text)  # noqa: FBT003 — the expected value

        assert not wrong

    def test_a_special_token_is_one_only_where_the_tokenizer_added_it(self, builtin: Case) -> None:
        tokens = builtin.encoder().tokenizer.tokenize("[SEP] fox", special=True)

        assert [("[CLS]", True, 0, 0), ("[SEP]", False, 0, 5), ("fox", False, 6, 9), ("[SEP]", True, 0, 0)] == [
            (token.token, token.special, token.start, token.stop) for token in tokens
        ]

    def test_ids_are_decoded_as_by_transformers(self, cases: dict[str, Case]) -> None:
        wrong = Wrong()
        for kind, case in cases.items():
            for text in TEXTS:
                ids = case.ids(text, special=True)
                expected = case.reference.decode(ids, clean_up_tokenization_spaces=False)
                wrong.compare(expected, case.encoder().tokenizer.decode(ids), kind, text)

        assert not wrong

    def test_an_id_outside_the_vocabulary_is_refused(self, cases: dict[str, Case]) -> None:
        for case, unknown in product(cases.values(), (-1, 10**7, 2**32, 2**70)):
            with pytest.raises(InvalidTokenIds, match=f"token {unknown} is not in this model's vocabulary"):
                case.encoder().tokenizer.decode([1, unknown])


class TestHugeTexts:
    def test_are_tokenized_no_further_than_needed(self, builtin: Case) -> None:
        encoder = builtin.encoder(max_tokens=48)
        (whole,) = encoder.encode(["word " * 19_000])  # under 100,000 characters

        (huge,) = encoder.encode(["word " * 1_000_000])

        assert whole.ids == huge.ids
        assert 20_000 == huge.token_count

    def test_are_counted_to_the_end_where_that_is_needed(self, builtin: Case) -> None:
        (row,) = builtin.encoder(max_tokens=48).encode(["word " * 30_000], count_up_to=25_000)

        assert 30_000 == row.token_count


class TestPairs:
    def test_ids_and_types_are_those_of_transformers(self, pair_cases: dict[str, Case]) -> None:
        wrong = Wrong()
        for kind, case in pair_cases.items():
            for document in [*TEXTS, DOCUMENT]:
                expected = case.reference(QUERY, document, return_token_type_ids=True)
                types, count = expected["token_type_ids"], len(case.ids(QUERY)) + len(case.ids(document))
                (row,) = case.encoder("score").encode_pairs(QUERY, [document], None)
                wrong.compare(Row(expected["input_ids"], types if any(types) else None, count, 0), row, kind, document)

        assert not wrong

    def test_type_ids_distinguish_query_and_document_if_the_tokenizer_does(self, cases: dict[str, Case]) -> None:
        (bert,) = cases["pieces"].encoder("score").encode_pairs("the", ["fox"], None)
        (roberta,) = cases["bytes-roberta"].encoder("score").encode_pairs("the", ["fox"], None)

        assert bert.type_ids is not None
        assert ({0, 1}, len(bert.ids)) == (set(bert.type_ids), len(bert.type_ids))
        assert roberta.type_ids is None

    def test_the_document_is_cut_first(self, pair_cases: dict[str, Case]) -> None:
        wrong = Wrong()
        for kind, case in pair_cases.items():
            whole = len(case.reference(QUERY, DOCUMENT)["input_ids"])
            for excess in (-1, 0, 1, 3):
                options = {"truncation": "only_second", "max_length": whole - excess, "return_token_type_ids": True}
                expected = case.reference(QUERY, DOCUMENT, **options)
                types = expected["token_type_ids"]
                (row,) = case.encoder("score", whole - excess).encode_pairs(QUERY, [DOCUMENT], None)
                actual = (row.ids, row.type_ids, row.truncated_tokens)
                wrong.compare((expected["input_ids"], types if any(types) else None, max(0, excess)), actual, kind)

        assert not wrong

    def test_the_query_is_cut_only_beyond_half_of_the_space(self, pair_cases: dict[str, Case]) -> None:
        query, document, half = DOCUMENT, "fox " * 40, 5
        wrong = Wrong()
        for kind, case in pair_cases.items():
            first, second = case.ids(query), case.ids(document)
            (row,) = case.encoder("score", case.special("x", "x") + 2 * half).encode_pairs(query, [document], None)
            kept = [at for at in row.ids if at not in case.reference.all_special_ids]
            count = len(first) + len(second)
            actual = (kept, row.token_count, row.truncated_tokens)
            wrong.compare((first[:half] + second[:half], count, count - 2 * half), actual, kind)

        assert not wrong

    def test_a_limit_on_documents_cuts_each_and_not_the_query(self, pair_cases: dict[str, Case]) -> None:
        wrong = Wrong()
        for kind, case in pair_cases.items():
            beginning = case.reference.decode(case.ids(DOCUMENT)[:3])
            cut, short = case.encoder("score").encode_pairs(QUERY, [DOCUMENT, beginning], 3)
            wrong.compare((short.ids, len(case.ids(DOCUMENT)) - 3), (cut.ids, cut.truncated_tokens), kind)
            wrong.compare(0, short.truncated_tokens, kind)

        assert not wrong

    def test_many_documents_encode_as_each_does_alone(self, pair_cases: dict[str, Case]) -> None:
        wrong = Wrong()
        for kind, case in pair_cases.items():
            encoder = case.encoder("score", 24)
            alone = [encoder.encode_pairs(QUERY, [text], None)[0] for text in TEXTS]
            wrong.compare(alone, encoder.encode_pairs(QUERY, TEXTS, None), kind)

        assert not wrong

    def test_an_embedding_model_takes_no_pairs(self, pair_cases: dict[str, Case]) -> None:
        for case in pair_cases.values():
            with pytest.raises(TypeError, match="takes single texts"):
                case.encoder("embed").encode_pairs(QUERY, [DOCUMENT], None)


class TestThreads:
    """Every method is thread-safe."""

    def test_eight_threads_get_the_single_texts_that_one_gets(self, builtin: Case) -> None:
        encoder = builtin.encoder(max_tokens=24)
        calls = [([*islice(cycle(TEXTS), at % 7, at % 7 + 3)], at % 20 or None) for at in range(2400)]
        expected = [encoder.encode(texts, max_tokens=limit) for texts, limit in calls]

        with ThreadPoolExecutor(8) as threads:
            rows = list(threads.map(lambda call: encoder.encode(call[0], max_tokens=call[1]), calls))

        assert expected == rows

    def test_eight_threads_get_the_pairs_that_one_gets(self, builtin: Case) -> None:
        encoder = builtin.encoder("score", 24)
        calls = [(TEXTS[at % 7], TEXTS[at % 5 : at % 5 + 3], at % 20 or None) for at in range(2400)]
        expected = [encoder.encode_pairs(*call) for call in calls]

        with ThreadPoolExecutor(8) as threads:
            rows = list(threads.map(lambda call: encoder.encode_pairs(*call), calls))

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
    def test_single(self, call: SingleCall, cases: dict[str, Case]) -> None:
        case = cases[call.kind]
        special = case.special("x")

        rows = case.encoder(max_tokens=call.max_tokens).encode(call.texts, call.prompt, call.limit)

        assert len(call.texts) == len(rows)
        for text, row in zip(call.texts, rows, strict=True):
            assert len(row.ids) <= call.max_tokens
            assert row.token_count - row.truncated_tokens == len(row.ids) - special
            assert row.token_count - row.truncated_tokens <= (call.limit or call.max_tokens)
            assert len(case.ids(call.prompt + text)) == row.token_count

    @settings(max_examples=200, deadline=None)
    @given(call=PAIR_CALLS)
    def test_pairs(self, call: PairCall, cases: dict[str, Case]) -> None:
        case = cases[call.kind]
        special = case.special("x", "x")

        (row,) = case.encoder("score", call.max_tokens).encode_pairs(call.query, [call.document], call.limit)

        assert len(row.ids) <= call.max_tokens
        assert row.token_count - row.truncated_tokens == len(row.ids) - special
        count = len(case.ids(call.query)) + len(case.ids(call.document))
        assert count == row.token_count
        assert row.type_ids is None or len(row.ids) == len(row.type_ids)


class TestOpening:
    @pytest.mark.parametrize("kind", ["bytes-roberta", "unigrams", "pieces"])
    def test_lowercasing_comes_first(self, kind: str, cases: dict[str, Case]) -> None:
        case = cases[kind]
        texts = [text for text in TEXTS if "[CLS]" not in text]  # special tokens are found before lowercasing
        expected = [case.reference(text.lower())["input_ids"] for text in texts]

        rows = TextEncoder(case.folder, replace(recipe(max_tokens=512), lower_case=True)).encode(texts)

        assert expected == [row.ids for row in rows]

    def test_the_files_own_truncation_and_padding_are_off(self, tmp_path: Path) -> None:
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
        write_files(tmp_path, files)
        expected = [read_tokenizer(tmp_path)(text)["input_ids"] for text in ("The foxs", *TEXTS)]

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
    def test_transformers_decides_if_a_tokenizers_two_files_disagree(
        self, kind: str, class_name: str, option: str, value: bool, tmp_path: Path
    ) -> None:
        """It rebuilds such tokenizers from tokenizer_config.json; the model was trained with what it built."""
        make_tokenizer(kind).save_pretrained(tmp_path)  # type: ignore[arg-type]  # a row of the table
        config = json.loads((tmp_path / "tokenizer_config.json").read_text())
        write_files(tmp_path, {"tokenizer_config.json": config | {"tokenizer_class": class_name, option: value}})
        write_files(tmp_path, {"config.json": {"model_type": class_name.removesuffix("Tokenizer").lower()}})
        text = "Quick fox über mañana"
        expected = read_tokenizer(tmp_path)(text)["input_ids"]

        (row,) = TextEncoder(tmp_path, recipe()).encode([text])

        assert expected == row.ids

    @pytest.mark.parametrize("content", [b"", b"{", b'{"version": "1.0"}', b"[]", b"\xff"])
    def test_a_damaged_file_is_named(self, content: bytes, tmp_path: Path) -> None:
        write_files(tmp_path, {"tokenizer.json": content})

        with pytest.raises(CheckpointError) as refused:
            TextEncoder(tmp_path, recipe())

        reason = "has unexpected content: " if content == b"[]" else "is damaged: "
        assert str(refused.value).startswith(f"{tmp_path / 'tokenizer.json'}: {reason}")

    @pytest.mark.parametrize("model_type", [None, "unheard-of", "bert", "roberta", "xlm-roberta", "mpnet", "qwen2"])
    def test_a_folder_without_any_tokenizer_is_refused(self, model_type: str | None, tmp_path: Path) -> None:
        """Transformers would make an empty one, to which every word is unknown."""
        write_files(tmp_path, {"config.json": {"model_type": model_type}} if model_type else {})

        with pytest.raises(CheckpointError) as refused:
            TextEncoder(tmp_path, recipe())

        assert str(refused.value).startswith(f"{tmp_path}: has no tokenizer (")

    @pytest.mark.parametrize(
        ("kind", "task", "least"),
        [("pieces", "embed", 3), ("pieces", "score", 4), ("unigrams", "score", 5), ("bytes", "embed", 1)],
    )
    def test_a_limit_that_leaves_no_room_for_text_is_refused(
        self, kind: str, task: Literal["embed", "score"], least: int, cases: dict[str, Case]
    ) -> None:
        folder = cases[kind].folder

        with pytest.raises(CheckpointError) as refused:
            TextEncoder(folder, recipe(task, least - 1))

        assert str(refused.value).startswith(
            f"{folder}: a limit of {least - 1} tokens leaves no room for text; set max_tokens"
        )
        assert TextEncoder(folder, recipe(task, least)).max_tokens == least

    def test_a_tokenizer_without_a_vocabulary_is_refused(self, tmp_path: Path) -> None:
        from tokenizers import Tokenizer, models

        Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))

        with pytest.raises(CheckpointError, match=r"tokenizer\.json: special tokens that change"):
            TextEncoder(tmp_path, recipe())
