"""A folder's tokenizer is the one that transformers builds from all of its files, or it is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from checkpoints import make_tokenizer, write_files
from tokenizers import Tokenizer, normalizers, pre_tokenizers

from nearfar.core.errors import CheckpointError, InputError
from nearfar.models.files.tokenizer.tokenizer_classes import find_class, is_built_alike
from nearfar.models.files.tokenizer.tokenizer_json import open_tokenizer, read_tokenizer_options
from nearfar.models.recipe.recipe import Recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WORDS = [*"abcdefghijklmnopqrstuvwxyz.,!'", "▁", "the", "▁the", "World", "Ġ", "é", "3"]
TEXTS = ("a", "World!", "the World's CAPS", " the\tab  é\n", "[CLS] a [MASK] <s> </s> <mask> <|endoftext|>", "x 3.14")
CLASSES = (
    *("BertTokenizer", "DistilBertTokenizer", "MPNetTokenizer", "RobertaTokenizer", "XLMRobertaTokenizer"),
    *("Qwen2Tokenizer", "GemmaTokenizer"),
)
SPECIAL = {
    "BertTokenizer": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "MPNetTokenizer": ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"],
    "Qwen2Tokenizer": ["<|endoftext|>"],
    "GemmaTokenizer": ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"],
}
MODEL_TYPES = {"XLMRobertaTokenizer": "xlm-roberta", "Qwen2Tokenizer": "qwen2", "GemmaTokenizer": "gemma"}


def write_class(folder: Path, name: str, **options: Any) -> Path:
    """Write a tiny tokenizer of a class of transformers."""
    special = SPECIAL.get(name, SPECIAL["BertTokenizer"] if "Bert" in name else ["<s>", "<pad>", "</s>", "<unk>"])
    words = [*special, *WORDS] if "BertT" in name or name == "MPNetTokenizer" else [*special, *WORDS, "<mask>"]
    words += [f"##{word}" for word in WORDS[:26]]
    vocabulary: Any = {word: at for at, word in enumerate(words)}
    if name == "XLMRobertaTokenizer":
        options["vocab"] = [(word, -float(at)) for at, word in enumerate(words)]
    else:
        options["vocab"] = vocabulary
    if name in {"RobertaTokenizer", "Qwen2Tokenizer", "GemmaTokenizer"}:
        options["merges"] = []
    import transformers

    getattr(transformers, name)(**options).save_pretrained(folder)
    model_type = MODEL_TYPES.get(name, name.removesuffix("Tokenizer").lower())
    return write_files(folder, {"config.json": {"model_type": model_type, "vocab_size": 200}})


def read_reference(folder: Path, **options: Any) -> Any:
    """Open the tokenizer with transformers, which takes seconds to import."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, **options)


def edit(folder: Path, name: str, **changes: Any) -> None:
    file = folder / name
    found = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({key: value for key, value in (found | changes).items() if value is not ...}))


def edit_tokenizer(folder: Path, change: Callable[[Tokenizer], None]) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    change(tokenizer)
    tokenizer.save(str(folder / "tokenizer.json"))


def set_metaspace(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()


def set_digits(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("3", "e"), tokenizer.normalizer])


def set_left(tokenizer: Tokenizer) -> None:
    tokenizer.enable_truncation(8, direction="left")


def add_word(tokenizer: Tokenizer) -> None:
    tokenizer.add_tokens(["World!"])


ADDED = {"content": "CAPS", "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
# Edits that leave tokenizer.json as it is, or change it so that transformers reads something else from the folder.
EDITS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a token of added_tokens_decoder": (
        "BertTokenizer",
        lambda folder: edit(folder, "tokenizer_config.json", added_tokens_decoder={"300": {**ADDED, "special": False}}),
    ),
    "additional special tokens": (
        "BertTokenizer",
        lambda folder: edit(folder, "tokenizer_config.json", additional_special_tokens=["World", "CAPS"]),
    ),
    "extra special tokens by name": (
        "BertTokenizer",
        lambda folder: edit(folder, "tokenizer_config.json", extra_special_tokens={"image_token": "CAPS"}),
    ),
    "special tokens of the model": (
        "BertTokenizer",
        lambda folder: edit(folder, "tokenizer_config.json", model_specific_special_tokens={"image_token": "CAPS"}),
    ),
    "a named token": ("BertTokenizer", lambda folder: edit(folder, "tokenizer_config.json", bos_token="World")),
    "special_tokens_map.json": (
        "BertTokenizer",
        lambda folder: edit(folder, "special_tokens_map.json", mask_token={**ADDED, "content": "the"}),
    ),
    "added_tokens.json": ("BertTokenizer", lambda folder: edit(folder, "added_tokens.json", CAPS=300)),
    "split_special_tokens": (
        "BertTokenizer",
        lambda folder: edit(folder, "tokenizer_config.json", split_special_tokens=True),
    ),
    "do_lower_case": ("BertTokenizer", lambda folder: edit(folder, "tokenizer_config.json", do_lower_case=False)),
    "a normalizer more": ("BertTokenizer", lambda folder: edit_tokenizer(folder, set_digits)),
    "a token that only tokenizer.json adds": ("BertTokenizer", lambda folder: edit_tokenizer(folder, add_word)),
    "another class": (
        "BertTokenizer",
        lambda folder: edit(folder, "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast"),
    ),
    "an older layout": ("XLMRobertaTokenizer", lambda folder: edit_tokenizer(folder, set_metaspace)),
    "the left side": (
        "BertTokenizer",
        lambda folder: edit(folder, "tokenizer_config.json", truncation_side="left"),
    ),
    "the left side in tokenizer.json": ("BertTokenizer", lambda folder: edit_tokenizer(folder, set_left)),
    "tokenizer_args": (
        "BertTokenizer",
        lambda folder: edit(
            folder,
            "sentence_bert_config.json",
            tokenizer_args={"truncation_side": "left", "do_lower_case": False, "padding_side": "left"},
        ),
    ),
    "processor_kwargs": (
        "Qwen2Tokenizer",
        lambda folder: edit(folder, "sentence_bert_config.json", processor_kwargs={"add_eos_token": True}),
    ),
}


@pytest.mark.parametrize("what", EDITS)
def test_what_any_file_says_about_the_tokenizer_counts_as_in_transformers(what: str, tmp_path: Path) -> None:
    name, change = EDITS[what]
    change(write_class(tmp_path, name))

    opened = open_tokenizer(tmp_path)
    reference = read_reference(tmp_path, **read_tokenizer_options(tmp_path).overrides)

    assert [opened.tokenizer.encode(text).ids for text in TEXTS] == [reference(text)["input_ids"] for text in TEXTS]
    assert opened.has_types == ("token_type_ids" in reference.model_input_names)
    assert opened.truncates_left == (reference.truncation_side == "left")


@pytest.mark.parametrize("name", CLASSES)
def test_a_tokenizer_as_its_class_saves_it_needs_no_transformers(name: str, tmp_path: Path) -> None:
    folder = write_class(tmp_path, name, **({"add_bos_token": True} if name == "Qwen2Tokenizer" else {}))

    opened = open_tokenizer(folder)
    reference = read_reference(folder)

    assert opened.source == "tokenizer.json"
    assert type(reference).__name__ == name
    assert opened.has_types == ("token_type_ids" in reference.model_input_names)
    assert [opened.tokenizer.encode(text).ids for text in TEXTS] == [reference(text)["input_ids"] for text in TEXTS]


def test_a_class_that_would_build_another_tokenizer_is_noticed(tmp_path: Path) -> None:
    folder = write_class(tmp_path, "BertTokenizer")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    alike = [name for name in CLASSES if is_built_alike(tokenizer, name, {})]

    assert alike == ["BertTokenizer", "DistilBertTokenizer"]
    assert find_class("qwen2", {"tokenizer_class": "PreTrainedTokenizerFast"}) == "Qwen2Tokenizer"
    assert find_class("llama", {"tokenizer_class": "PreTrainedTokenizerFast"}) == "TokenizersBackend"
    assert find_class("llama", {}) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer_config.json": {"tokenizer_class": "RoFormerTokenizer"}}, "RoFormerTokenizer"),
        ({"tokenizer_config.json": {"tokenizer_class": "BertJapaneseTokenizer"}}, "BertJapaneseTokenizer"),
        ({"tokenizer_config.json": {"tokenizer_class": "CanineTokenizer"}}, "CanineTokenizer has rules in Python"),
        ({"tokenizer_config.json": {"tokenizer_class": "LayoutLMv2Tokenizer"}}, "LayoutLMv2Tokenizer has rules in"),
        (
            {"tokenizer_config.json": {"truncation_side": "middle"}},
            "truncation_side = 'middle' isn't left or right; set",
        ),
        ({"tokenizer_config.json": {"padding_side": None}}, "padding_side = None isn't left or right; set one"),
        ({"sentence_bert_config.json": {"tokenizer_args": {"vocab_file": "x"}}}, "option vocab_file isn't supported"),
    ],
)
def test_a_tokenizer_that_cant_be_built_alike_is_refused_by_name(
    change: dict[str, dict[str, Any]], message: str, tmp_path: Path
) -> None:
    folder = write_class(tmp_path, "BertTokenizer")
    for name, values in change.items():
        edit(folder, name, **values)

    with pytest.raises(CheckpointError, match=message):
        open_tokenizer(folder)


def encoder(folder: Path, max_tokens: int = 12) -> TextEncoder:
    recipe = Recipe(
        architecture="B", model_type="bert", task="score", max_tokens=max_tokens, hidden_size=8, type_ids=True
    )
    return TextEncoder(folder, recipe)


@pytest.mark.parametrize("size", [5, 8, 9, 12, 40])
def test_texts_and_pairs_lose_their_start_on_the_left(size: int, tmp_path: Path) -> None:
    make_tokenizer("pieces").save_pretrained(tmp_path)
    edit(tmp_path, "tokenizer_config.json", truncation_side="left")
    reference = read_reference(tmp_path)
    tokens = encoder(tmp_path, size)

    for first, second in (("the quick brown fox", "the lazy dog, again and again"), ("a dog " * 9, "fox"), ("a", "b")):
        options = {"truncation": True, "max_length": size}
        assert tokens.encode([first])[0].ids == reference(first, **options)["input_ids"]
        assert tokens.encode([first], "the ")[0].ids == reference("the " + first, **options)["input_ids"]
        assert tokens.encode_pairs(first, [second], None)[0].ids == reference(first, second, **options)["input_ids"]


def test_token_types_are_those_of_the_tokenizers_class(tmp_path: Path) -> None:
    make_tokenizer("pieces").save_pretrained(tmp_path)
    with_types = encoder(tmp_path).encode_pairs("a dog", ["the fox"], None)[0].type_ids
    edit(tmp_path, "tokenizer_config.json", model_input_names=...)

    assert with_types
    assert encoder(tmp_path).encode_pairs("a dog", ["the fox"], None)[0].type_ids is None


def test_a_token_without_an_embedding_is_refused_by_its_text(tmp_path: Path) -> None:
    folder = write_class(tmp_path, "BertTokenizer")
    size = len(read_reference(folder))
    edit(folder, "config.json", vocab_size=size)
    encoder(folder)
    edit_tokenizer(folder, add_word)
    edit(folder, "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")

    with pytest.raises(CheckpointError, match="'World!'"):
        encoder(folder)

    edit(folder, "config.json", vocab_size=size + 1)
    edit(folder, "tokenizer_config.json", additional_special_tokens=["CAPS"])
    tokens = encoder(folder)
    assert tokens.encode(["a"])
    with pytest.raises(InputError, match="'CAPS'"):
        tokens.encode(["the CAPS"])
