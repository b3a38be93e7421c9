"""A hostile tokenizer.json is refused at once, by name; what fails for one text alone is the request's error."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from checkpoints import write_files
from tokenizers import Tokenizer

from nearfar.core.errors import CheckpointError, InputError
from nearfar.models.files.tokenizer.tokenizer_json import open_tokenizer
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from pathlib import Path

Content = dict[str, Any]
USUAL_BYTES: Content = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
WORDS = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "##a": 4, "b": 5}
MODEL: Content = {"type": "WordPiece", "vocab": WORDS, "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
MODEL |= {"max_input_chars_per_word": 100}
CONFIG = {"model_type": "modernbert", "vocab_size": 2**22}


def replace(content: str, **pattern: str) -> Content:
    return {"type": "Replace", "pattern": pattern, "content": content}


def split(pattern: str) -> Content:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def sequence(*steps: Content) -> Content:
    return {"type": "Sequence", "normalizers": [*steps]}


def words(*steps: Content) -> Content:
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps]}}


def added(count: int, text: str = "<x{}>") -> list[Content]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    return [{"id": 10 + at, "content": text.format(at), **flags} for at in range(count)]


def template(pieces: int, ids: int, texts: int = 1) -> Content:
    text = [{"Sequence": {"id": "A", "type_id": 0}}] * texts
    single = [*[{"SpecialToken": {"id": "[CLS]", "type_id": 0}}] * pieces, *text]
    pair = [*text, {"Sequence": {"id": "B", "type_id": 0}}]
    special = {"[CLS]": {"id": "[CLS]", "ids": [1] * ids, "tokens": ["[CLS]"] * ids}}
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}


def charsmap(trie: int, text: bytes) -> Content:
    content = trie.to_bytes(4, "little") + bytes(trie) + text
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}


def model(**changes: Any) -> Content:
    return {"model": MODEL | changes}


def bpe(**changes: Any) -> Content:
    return {"model": {"type": "BPE", "vocab": WORDS, "merges": [], **changes}}


def unigram(vocab: list[Any], **changes: Any) -> Content:
    return {"model": {"type": "Unigram", "vocab": vocab, "unk_id": 0, **changes}}


ATTACKS: dict[str, Content] = {
    # normalizers that make texts longer
    "tenfold, twelve times": {"normalizer": sequence(*[replace("a" * 10, String="a")] * 12)},
    "tenfold in nested sequences": {"normalizer": sequence(*[sequence(*[replace("a" * 10, Regex="[a-c]")] * 4)] * 3)},
    "doubled at each empty match": {"normalizer": sequence(*[replace("a", Regex="")] * 40)},
    "doubled at each empty string": {"normalizer": sequence(*[replace("a", String="")] * 40)},
    "doubled at each lookahead": {"normalizer": sequence(*[replace("xx", Regex="(?=x)")] * 40)},
    "one rare letter": {"normalizer": sequence(*[replace("ж" * 9, String="ж")] * 9)},
    "a chain of letters": {
        "normalizer": sequence(replace("д" * 60, Regex=r"\p{Hebrew}"), replace("в" * 90, String="д"))
    },
    "bytes of bytes": {"normalizer": sequence(*[{"type": "ByteLevel"}] * 30)},
    "bytes of bytes of words": words(*[USUAL_BYTES] * 30),
    "10 MB prepended": {"normalizer": {"type": "Prepend", "prepend": "a" * 10**7}},
    "4 kB prepended": {"normalizer": sequence(*[{"type": "Prepend", "prepend": "a" * 4000}] * 10)},
    "many steps": {"normalizer": sequence(*[{"type": "NFC"}] * 10_000)},
    "nesting": {"normalizer": "NESTED"},
    # character maps
    "an empty character map": {"normalizer": charsmap(0, b"")},
    "a character map of garbage": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////////////w=="}},
    "a character map that isn't base64": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "é"}},
    "a character map with a long text": {"normalizer": charsmap(1024, b"a" * 100_000 + b"\0")},
    # patterns
    "nested repetition": words(split("(a+)+$")),
    "alternatives alike": words(split("(a|aa)+$")),
    "alternatives of words": words(split("(?:foo|foofoo)+$")),
    "optional parts": words(split(r"(\w*)*[%&]")),
    "polynomial": words(split("(?:a*a*a*a*a*)[bc]$")),
    "cubic": words(split("a*a*[bc]$")),
    "a backreference": words(split(r"(a*)(a*)\1\2\1+[xy]")),
    "letters of any script": words(split(r"(?:\p{L}+\p{M}*)+\d$")),
    "letters of one script": words(split(r"(\p{Han}+)+[.;]$")),
    "kinds of spaces": words(split(r"(?:[ \t]+|\s+)+x")),
    "nested words": words(split(r"(\s*\w+)+[;]")),
    "a pattern in a normalizer": {"normalizer": replace("b", Regex="(a+)+$")},
    "a pattern in a decoder": {"decoder": replace("b" * 5000, String="a")},
    "a damaged pattern": words(split("(((")),
    "a pattern of 100 kB": words(split("a|" * 50_000 + "b")),
    "words of no length": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    # added tokens and templates
    "200,000 added tokens": {"added_tokens": added(200_000)},
    "an added token of 1 MB": {"added_tokens": added(1, "a" * 10**6)},
    "100,000 times 1,000 ids": {"post_processor": template(100_000, 1000)},
    "10 times 1,000 ids": {"post_processor": template(10, 1000)},
    "the text 1,000 times": {"post_processor": template(1, 1, texts=1000)},
    "the text doubled 20 times": {"post_processor": {"type": "Sequence", "processors": [template(1, 1, texts=2)] * 20}},
    "an unknown special token": {"post_processor": template(1, 1) | {"special_tokens": {}}},
    # models
    "a word of 1 MB": model(vocab=WORDS | {"a" * 10**6: 6}),
    "a word of 1 MB in Unigram": unigram([["<unk>", 0.0], ["a" * 10**6, -1.0]]),
    "a prefix of 1 MB": model(continuing_subword_prefix="#" * 10**6),
    "words of any length": model(max_input_chars_per_word=10**18),
    "words of negative length": model(max_input_chars_per_word=-1),
    "no vocabulary": model(vocab={}),
    "negative ids": model(vocab=WORDS | {"c": -1}),
    "huge ids": model(vocab=WORDS | {"c": 2**70}),
    "merges of numbers": bpe(merges=[[1, 2]]),
    "merges of three": bpe(merges=["a b c"]),
    "merges of no words": bpe(merges=["x y"]),
    "an empty Unigram": unigram([]),
    "an unknown id beyond": unigram([["a", 0.0]], unk_id=10**6),
    "no unknown id": unigram([["b", 0.0]], unk_id=None),
    "words that aren't pairs": unigram([1, [], [[]]]),
    "a list of words": model(vocab=["a"]),
    # decoders
    "a decoder that cuts too much": {"decoder": {"type": "Strip", "content": "a", "start": 2**40, "stop": 2**40}},
    "a decoder that grows": {"decoder": {"type": "Sequence", "decoders": [replace("a" * 10, String="a")] * 12}},
    # types
    "a post_processor of lists": {"post_processor": template(1, 1) | {"special_tokens": []}},
    "a template of numbers": {"post_processor": template(1, 1) | {"single": [1, {"Sequence": 1}]}},
    "a normalizer of text": {"normalizer": "NFC"},
}


def write_tokenizer(folder: Path, changes: Content, depth: int = 100_000) -> Path:
    parts = dict.fromkeys(("truncation", "padding", "normalizer", "decoder"))
    content = parts | {"version": "1.0", "added_tokens": [], "post_processor": template(1, 1), "model": MODEL} | changes
    if "pre_tokenizer" not in content:
        content["pre_tokenizer"] = {"type": "BertPreTokenizer"}
    nested = '{"type": "Sequence", "normalizers": [' * depth + "]}" * depth
    files = {"tokenizer.json": json.dumps(content).replace('"NESTED"', nested), "config.json": CONFIG}
    return write_files(folder, files | {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"}})


def open_encoder(folder: Path) -> TextEncoder:
    return TextEncoder(
        folder, Recipe(architecture="BertModel", model_type="bert", task="embed", max_tokens=4096, hidden_size=8)
    )


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_tokenizer_is_refused_by_name_and_soon(attack: str, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, ATTACKS[attack])
    began = time.process_time()

    with pytest.raises(CheckpointError) as refused:
        open_encoder(tmp_path)

    assert str(refused.value).startswith(f"{tmp_path / 'tokenizer.json'}: ")
    assert len(str(refused.value)) < len(str(tmp_path)) + 400
    assert time.process_time() - began < 5


@pytest.mark.parametrize("depth", [60, 200, 1000, 10_000])
def test_nested_sequences_are_opened_or_refused(depth: int, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, {"normalizer": "NESTED"}, depth)

    try:
        opened = open_encoder(tmp_path).encode(["a"])[0].ids
    except CheckpointError:
        opened = None

    assert opened in ([1, 3], None)


def test_a_vocabulary_of_absurd_size_is_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, model(vocab=dict.fromkeys(map(str, range(2**21 + 1)), 0)))

    with pytest.raises(CheckpointError, match="2,097,153 words in the vocabulary"):
        open_encoder(tmp_path)


@pytest.mark.parametrize("name", ["added_tokens_decoder", "additional_special_tokens"])
def test_too_many_added_tokens_in_the_other_file_are_refused(name: str, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, {})
    tokens = {str(at): {"content": f"<{at}>"} for at in range(200_000)}
    content = tokens if name == "added_tokens_decoder" else [*tokens]
    write_files(tmp_path, {"tokenizer_config.json": {name: content}})

    with pytest.raises(CheckpointError, match=rf"tokenizer_config\.json: {name} has over"):
        open_encoder(tmp_path)


USUAL: dict[str, Content] = {
    "plain": {},
    "Gemma's added tokens": {"added_tokens": added(6500)},
    "GPT-4o's pattern": words(
        split(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )
    ),
    "groups of three digits": words(split(r"\d{1,3}(?=(?:\d{3})*\b)")),
    "T5's spaces": {"normalizer": sequence({"type": "NFKC"}, replace(" ", Regex=" {2,}"), replace("▁", String=" "))},
    "ligatures written out": {
        "normalizer": sequence(
            *[replace(text, String=sign) for sign, text in {"ﷺ": "s" * 18, "½": "1/2", "…": "..."}.items()]
        )
    },
    "128 spaces as a word": bpe(vocab=WORDS | {" " * 128: 6}),
    "ByteLevel": {"pre_tokenizer": USUAL_BYTES},
    "Llama's decoder": {
        "decoder": {
            "type": "Sequence",
            "decoders": [
                replace(" ", String="▁"),
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        }
    },
}


@pytest.mark.parametrize("case", USUAL)
def test_usual_tokenizers_are_opened_as_they_are(case: str, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, USUAL[case])
    expected = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("a b, and… 1/2").ids

    opened = open_tokenizer(tmp_path)

    assert ("tokenizer.json", expected) == (opened.source, opened.tokenizer.encode("a b, and… 1/2").ids)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (words(split(r"(\p{Thai}+)+$")), "ก" * 60 + "!"),  # slow for letters alone that it doesn't contain
        (model(unk_token="absent"), "c"),
    ],
)
def test_a_text_that_the_tokenizer_cannot_process_is_the_requests_error(
    changes: Content, text: str, tmp_path: Path
) -> None:
    encoder = open_encoder(write_tokenizer(tmp_path, changes))

    for call in (encoder.encode, lambda texts: encoder.tokenizer.tokenize(texts[0], special=False)):
        with pytest.raises(InputError, match=r"this model's tokenizer \(tokenizer\.json\) can't process the text"):
            call([text])
    assert [1, 3] == encoder.encode(["a"])[0].ids


def test_a_character_map_that_states_gigabytes_is_refused_before_they_are_allocated(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, ATTACKS["a character map of garbage"])

    with pytest.raises(CheckpointError, match="has 10 bytes, but states 4,294,967,295"):
        open_encoder(tmp_path)


def test_tokens_that_are_chosen_at_random_are_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, bpe(dropout=0.5))

    with pytest.raises(CheckpointError, match=r"tokenizer.json: model.dropout = 0.5 is for training, .*; remove it"):
        open_tokenizer(tmp_path)
