"""Opens a checkpoint's tokenizer, the same one that the installed transformers would build.

tokenizer.json is nearly always enough, and saves the two seconds of importing transformers. If it is missing, or isn't
what transformers builds from the folder, transformers builds the tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from nearfar.core.errors import CheckpointError
from nearfar.models.files.config import SentenceConfig, find_sentence_file
from nearfar.models.files.json_files import MAX_BYTES, read_optional_json
from nearfar.models.files.tokenizer.tokenizer_classes import find_class, has_types, is_built_alike
from nearfar.models.files.tokenizer.tokenizer_limits import (
    MAX_ADDED,
    is_failure,
    refuse_absurd_tokenizer,
    try_tokenizer,
)

_OLDER_FILES = ("vocab.txt", "vocab.json", "*.model", "*.bpe.codes")
# Options that sentence-transformers passes on to the tokenizer and that change ids, besides special tokens.
_HONORED = {
    *("add_bos_token", "add_eos_token", "add_prefix_space", "additional_special_tokens", "do_lower_case"),
    *("extra_special_tokens", "fix_mistral_regex", "keep_accents", "legacy", "model_input_names", "model_max_length"),
    *("remove_space", "split_special_tokens", "strip_accents", "tokenize_chinese_chars", "truncation_side"),
}
# Those that change nothing here: texts are padded on the right and masked, and nothing is downloaded.
_IRRELEVANT = {
    *("cache_dir", "clean_up_tokenization_spaces", "force_download", "local_files_only", "max_length", "padding"),
    *("padding_side", "pad_to_multiple_of", "revision", "token", "trim_offsets", "trust_remote_code", "truncation"),
    *("use_auth_token", "use_fast", "verbose"),
}
_PROBES = (("a",), ("Two words, and a 3rd.",), ("Ünïcode 机器 мир",), ("x  y\n",), ("a text", "and another"))


class TokenizerOptions(NamedTuple):
    """The options of the tokenizer in the folder's files."""

    # tokenizer_config.json, in older layouts with the tokens of its other files.
    stated: dict[str, Any]
    # What sentence-transformers passes on: ``tokenizer_args`` or ``processor_kwargs`` of its own file.
    overrides: dict[str, Any]

    @property
    def all(self) -> dict[str, Any]:
        """The options with the overrides applied."""
        return self.stated | self.overrides


class OpenedTokenizer(NamedTuple):
    """A tokenizer, and how transformers uses it."""

    tokenizer: Tokenizer
    # Whether pairs get token types.
    has_types: bool
    # Whether a text over the limit loses its start.
    truncates_left: bool
    # What it was built from.
    source: str


def open_tokenizer(folder: Path) -> OpenedTokenizer:
    """Open the folder's tokenizer. Raises CheckpointError if there is none, or it is damaged or not supported."""
    options = read_tokenizer_options(folder)
    file = folder / "tokenizer.json"
    if not file.is_file():
        return _build(folder, options)
    if file.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"{file}: has over {MAX_BYTES:,} bytes, too many for a tokenizer; download it again")
    refuse_absurd_tokenizer(file)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except BaseException as error:  # tokenizers raises nothing narrower, and panics
        if is_failure(error):
            raise CheckpointError(f"{file}: is damaged: {error}; download it again") from error
        raise
    _refuse_random_tokens(tokenizer, file)
    direction = (tokenizer.truncation or {}).get("direction", "right")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    try_tokenizer(tokenizer, file)
    config = read_optional_json(folder / "config.json", dict[str, Any])
    name = find_class(config.get("model_type", ""), {"tokenizer_class": config.get("tokenizer_class"), **options.all})
    explicit = options.overrides.keys() & {"add_bos_token", "add_eos_token"}  # the file's template counts otherwise
    try:
        is_whole = name is not None and not explicit and is_built_alike(tokenizer, name, options.all)
    except TypeError as error:
        place, reason = folder / "tokenizer_config.json", str(error).partition("\n")[0]
        raise CheckpointError(f"{place}: an option has the wrong type ({reason}); download it again") from error
    if name is None or not is_whole:
        return _build(folder, options)
    return OpenedTokenizer(
        tokenizer,
        has_types=has_types(name, options.all),
        truncates_left=options.all.get("truncation_side", direction) == "left",
        source="tokenizer.json",
    )


def read_tokenizer_options(folder: Path) -> TokenizerOptions:
    """Read the files with the options. Raises CheckpointError, naming it, for an option that isn't supported."""
    stated = read_optional_json(folder / "tokenizer_config.json", dict[str, Any])
    if "added_tokens_decoder" not in stated:  # these files are from before it
        stated |= read_optional_json(folder / "special_tokens_map.json", dict[str, Any])
        stated["added_tokens"] = read_optional_json(folder / "added_tokens.json", dict[str, int])
    for name in ("added_tokens_decoder", "added_tokens", "additional_special_tokens", "extra_special_tokens"):
        if isinstance(stated.get(name), dict | list) and len(stated[name]) > MAX_ADDED:
            place = folder / "tokenizer_config.json"
            raise CheckpointError(f"{place}: {name} has over {MAX_ADDED:,} tokens; use the file of the model's author")
    for side in ("padding_side", "truncation_side"):
        if stated.get(side, "right") not in {"left", "right"}:
            place = folder / "tokenizer_config.json"
            raise CheckpointError(f"{place}: {side} = {stated[side]!r} isn't left or right; set one of them")
    file = find_sentence_file(folder)
    overrides = read_optional_json(file, SentenceConfig).tokenizer_options
    for option in overrides:
        if option not in _HONORED | _IRRELEVANT and not option.endswith("_token"):
            raise CheckpointError(
                f"{file}: the tokenizer option {option} isn't supported; save the tokenizer with it "
                "(AutoTokenizer.from_pretrained, save_pretrained), or remove it"
            )
    return TokenizerOptions(stated, {name: value for name, value in overrides.items() if name not in _IRRELEVANT})


def _refuse_random_tokens(tokenizer: Tokenizer, file: Path) -> None:
    if dropout := getattr(tokenizer.model, "dropout", None):
        raise CheckpointError(
            f"{file}: model.dropout = {dropout} is for training, and gives a text other tokens each time; remove it"
        )


def known_ids(tokenizer: Tokenizer, words: Iterable[str]) -> frozenset[int]:
    """Return the ids of the words that are single tokens."""
    return frozenset(found for word in words if (found := tokenizer.token_to_id(word)) is not None)


def _build(folder: Path, options: TokenizerOptions) -> OpenedTokenizer:
    """Build the tokenizer with transformers."""
    files = [file.name for name in ("tokenizer.json", *_OLDER_FILES) for file in folder.glob(name)]
    if not files:
        raise CheckpointError(f"{folder}: has no tokenizer (tokenizer.json, vocab.txt or similar); download it")
    try:
        import transformers

        built = transformers.AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **options.overrides
        )
    except BaseException as error:  # a damaged file may raise anything there
        if not is_failure(error):
            raise
        declared = str(options.all.get("tokenizer_class") or "its model type's class")
        if isinstance(error, ImportError) and _is_python_class(declared):
            raise _python_rules(folder, declared) from error
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise CheckpointError(
            f"{folder}: transformers can't build its tokenizer ({declared}) from {files[0]}: {reason}; install what it "
            "needs, or save the tokenizer again with the library that made it, as tokenizer.json"
        ) from error
    name = type(built).__name__
    backend = getattr(built, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise _python_rules(folder, name)
    backend.no_truncation()
    backend.no_padding()
    try_tokenizer(backend, folder / files[0])
    if not _is_backend_alone(built, backend):
        raise _python_rules(folder, name)
    return OpenedTokenizer(
        backend,
        has_types="token_type_ids" in built.model_input_names,
        truncates_left=built.truncation_side == "left",
        source=f"{name} of transformers {transformers.__version__}",
    )


def _is_backend_alone(built: Any, backend: Tokenizer) -> bool:
    """Return whether the ids are those of the part that isn't written in Python."""
    try:
        return all(built(*probe)["input_ids"] == backend.encode(*probe).ids for probe in _PROBES)
    except Exception:  # noqa: BLE001 — those of documents want boxes, those of tables a table
        return False


def _is_python_class(name: str) -> bool:
    """Return whether transformers has a class of this name, and it doesn't use the library tokenizers."""
    from transformers import TokenizersBackend
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    found = tokenizer_class_from_name(name)
    return found is not None and not issubclass(found, TokenizersBackend)


def _python_rules(folder: Path, name: str) -> CheckpointError:
    return CheckpointError(
        f"{folder}: its tokenizer's class {name} has rules in Python that tokenizer.json can't contain, which isn't "
        "supported; use a model with a fast tokenizer"
    )
