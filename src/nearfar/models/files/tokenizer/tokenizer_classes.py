"""Compares a tokenizer.json with what transformers builds from it. Imports no transformers.

transformers 5 takes only the vocabulary from tokenizer.json where the tokenizer has a class of its own: normalizer,
pre-tokenizer and special tokens are that class's. A test compares the table below with the installed transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordPiece

Options = Mapping[str, Any]

# A class that keeps all of tokenizer.json, and its names.
GENERIC = "TokenizersBackend"
_GENERIC_NAMES = (GENERIC, "PreTrainedTokenizer")  # without "Fast"
_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The classes of model types: those that most embedding models and rerankers have. Any other is left to transformers.
_BY_MODEL_TYPE = {
    **dict.fromkeys(("bert", "distilbert", "electra", "nomic_bert"), "BertTokenizer"),
    **dict.fromkeys(("gte", "jina_embeddings_v3", "xlm-roberta"), "XLMRobertaTokenizer"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), "GemmaTokenizer"),
    **dict.fromkeys(("qwen2", "qwen3"), "Qwen2Tokenizer"),
    "modernbert": GENERIC,
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
}
# Model types with a declared class that transformers ignores.
_FORCED = {"modernbert", "qwen2"}
_OTHER_FORCED = {"hyperclovax_vision_v2", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen4_exp", "siglip2"}
_TOKEN_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class _TokenizerClass(Struct, frozen=True, kw_only=True):
    """What a class of transformers builds."""

    # Whether pairs get token types where the configuration doesn't decide.
    has_types: bool = False
    # The default texts of ``_TOKEN_NAMES``, None for those that it lacks.
    tokens: tuple[str | None, ...] = (None,) * len(_TOKEN_NAMES)
    # Whether normalizer, pre-tokenizer and model are those that it builds; None: it keeps the file's.
    fits: Callable[[Tokenizer, Options], bool] | None = None
    # Separators between the texts of a pair in its own template; None: it keeps the file's.
    separators: int | None = None


def _fits_bert(tokenizer: Tokenizer, options: Options) -> bool:
    normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=options.get("tokenize_chinese_chars", True),
        strip_accents=options.get("strip_accents"),
        lowercase=options.get("do_lower_case", True),
    )
    model = tokenizer.model
    return (
        _same(tokenizer.normalizer, normalizer)
        and _same(tokenizer.pre_tokenizer, pre_tokenizers.BertPreTokenizer())
        and isinstance(model, WordPiece)
        and (model.unk_token, model.continuing_subword_prefix) == (_text(options.get("unk_token", "[UNK]")), "##")
        and model.max_input_chars_per_word == WordPiece({}).max_input_chars_per_word
    )


def _fits_roberta(tokenizer: Tokenizer, options: Options) -> bool:
    space = bool(options.get("add_prefix_space"))
    words = pre_tokenizers.ByteLevel(add_prefix_space=space)
    return tokenizer.normalizer is None and _same(tokenizer.pre_tokenizer, words) and _is_plain_bpe(tokenizer)


def _fits_xlm_roberta(tokenizer: Tokenizer, options: Options) -> bool:
    scheme = "always" if options.get("add_prefix_space", True) else "never"
    words = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme)]
    )
    steps = _state(tokenizer.normalizer)
    inner = steps.get("normalizers", [steps]) if steps else []
    # Joining spaces changes nothing before WhitespaceSplit.
    joins_spaces = _state(normalizers.Replace(Regex(" {2,}"), " "))
    return (
        all(step["type"] == "Precompiled" or step == joins_spaces for step in inner)
        and [step["type"] for step in inner[:1]] in ([], ["Precompiled"])
        and _same(tokenizer.pre_tokenizer, words)
        and tokenizer.token_to_id("<unk>") == 3  # noqa: PLR2004 — the unk_id that the class sets
    )


def _fits_qwen2(tokenizer: Tokenizer, options: Options) -> bool:
    space = bool(options.get("add_prefix_space"))
    words = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_WORDS), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=space, use_regex=False),
        ]
    )
    fits = _same(tokenizer.normalizer, normalizers.NFC()) and _same(tokenizer.pre_tokenizer, words)
    return fits and _is_plain_bpe(tokenizer)


def _fits_gemma(tokenizer: Tokenizer, options: Options) -> bool:
    words = pre_tokenizers.Split(pattern=" ", behavior="merged_with_previous", invert=False)
    model = tokenizer.model
    return (
        _same(tokenizer.normalizer, normalizers.Replace(" ", "▁"))
        and _same(tokenizer.pre_tokenizer, words)
        and isinstance(model, BPE)
        and (model.fuse_unk, model.byte_fallback, model.ignore_merges) == (True, True, False)
        and (model.unk_token, model.dropout) == (_text(options.get("unk_token", "<unk>")), None)
    )


_SENTENCEPIECE_TOKENS = ("<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>")
_BERT = _TokenizerClass(
    has_types=True,
    tokens=(None, None, "[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"),
    fits=_fits_bert,
    separators=1,
)
_CLASSES = {
    GENERIC: _TokenizerClass(),
    "BertTokenizer": _BERT,
    "DistilBertTokenizer": _TokenizerClass(tokens=_BERT.tokens, fits=_fits_bert, separators=1),
    "MPNetTokenizer": _TokenizerClass(
        tokens=("<s>", "</s>", "[UNK]", "</s>", "<pad>", "<s>", "<mask>"),
        fits=_fits_bert,
        separators=2,
    ),
    "RobertaTokenizer": _TokenizerClass(tokens=_SENTENCEPIECE_TOKENS, fits=_fits_roberta, separators=2),
    "XLMRobertaTokenizer": _TokenizerClass(tokens=_SENTENCEPIECE_TOKENS, fits=_fits_xlm_roberta, separators=2),
    "Qwen2Tokenizer": _TokenizerClass(
        tokens=(None, "<|endoftext|>", "<|endoftext|>", None, "<|endoftext|>", None, None), fits=_fits_qwen2
    ),
    "GemmaTokenizer": _TokenizerClass(
        tokens=("<bos>", "<eos>", "<unk>", None, "<pad>", None, "<mask>"), fits=_fits_gemma
    ),
}


def find_class(model_type: str, options: Options) -> str | None:
    """Return the class that transformers chooses; None if it isn't in the table."""
    registered = _BY_MODEL_TYPE.get(model_type)
    declared = options.get("tokenizer_class")
    if options.get("auto_map") or model_type in _OTHER_FORCED:
        return None
    if not isinstance(declared, str) or model_type in _FORCED:
        return registered
    name = declared.removesuffix("Fast")
    if name in _GENERIC_NAMES:
        return GENERIC
    return name if registered and name in _CLASSES else None


def has_types(name: str, options: Options) -> bool:
    """Return whether pairs get token types."""
    names = options.get("model_input_names")
    return _CLASSES[name].has_types if names is None else "token_type_ids" in names


def is_built_alike(tokenizer: Tokenizer, name: str, options: Options) -> bool:
    """Return whether the class builds the very same tokenizer from tokenizer.json and these options."""
    built = _CLASSES[name]
    if options.get("split_special_tokens") or options.get("fix_mistral_regex") or options.get("fast_tokenizer_files"):
        return False
    if tokenizer.post_processor is None or (built.fits and not built.fits(tokenizer, options)):
        return False
    named = {key: default for key, default in zip(_TOKEN_NAMES, built.tokens, strict=True) if default}
    named |= {key: _text(token) for key, token in options.items() if key.endswith("_token") and _is_token(token)}
    if built.separators and not _has_template(tokenizer, named, built):
        return False
    return _has_tokens(tokenizer, named.values(), options, only=built.fits is not None)


def _has_template(tokenizer: Tokenizer, named: Mapping[str, str], built: _TokenizerClass) -> bool:
    """Return whether a text and a pair get the class's special tokens and types."""
    begin, end = tokenizer.token_to_id(named["cls_token"]), tokenizer.token_to_id(named["sep_token"])
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    pair = tokenizer.encode("a", "a")
    first = [begin, *bare, end]
    between = [end] * ((built.separators or 1) - 1)
    types = [0] * len(first) + [1] * (len(pair.ids) - len(first))
    return (
        tokenizer.encode("a").ids == first
        and pair.ids == [*first, *between, *bare, end]
        and (not built.has_types or pair.type_ids == types)
    )


def _has_tokens(tokenizer: Tokenizer, named: Iterable[str], options: Options, *, only: bool) -> bool:
    """Return whether the file's added tokens are those of the options; ``only``: the options may list all of them."""
    added = tokenizer.get_added_tokens_decoder()
    texts = {token.content for token in added.values()}
    listed = options.get("added_tokens_decoder")
    extra = options.get("extra_special_tokens") or options.get("additional_special_tokens") or []
    extra = extra.values() if isinstance(extra, dict) else extra
    more: dict[str, Any] = options.get("model_specific_special_tokens") or {}
    if not texts.issuperset((*named, *(_text(token) for token in (*extra, *more.values())))):
        return False
    if listed is None:
        older: dict[str, int] = options.get("added_tokens", {})
        return all(at in added and added[at].content == text for text, at in older.items())
    same = all(_flags(added.get(int(at))) == _flags(AddedToken(**token)) for at, token in listed.items())
    return same and (not only or len(listed) == len(added))


def _flags(token: AddedToken | None) -> tuple[object, ...]:
    names = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return tuple(getattr(token, name, None) for name in names)


def _is_plain_bpe(tokenizer: Tokenizer) -> bool:
    model = tokenizer.model
    return isinstance(model, BPE) and not (
        model.dropout
        or model.unk_token
        or model.continuing_subword_prefix
        or model.end_of_word_suffix
        or model.fuse_unk
        or model.byte_fallback
        or model.ignore_merges
    )


def _same(step: Any, other: Any) -> bool:
    return _state(step) == _state(other)


def _state(step: Any) -> dict[str, Any]:
    """Return a step's settings; those that change only offsets are left out."""
    settings: dict[str, Any] = json.loads(step.__getstate__()) if step is not None else {}
    for inner in settings.get("pretokenizers", [settings]):
        inner.pop("trim_offsets", None)
    return settings


def _is_token(token: object) -> bool:
    return isinstance(token, str) or (isinstance(token, dict) and "content" in token)


def _text(token: Any) -> str:
    """Return the text of a token that may be an object with it as ``content``."""
    return str(token["content"] if isinstance(token, dict) else token)
