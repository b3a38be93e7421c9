"""Refusals of the fields of other protocols, where ignoring them would change numbers."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, get_args, get_origin

import msgspec
from msgspec import Struct

from nearfar.core.errors import InputError

# The fields by which other protocols change numbers, each with the values that change nothing. A route refuses those
# that its body doesn't have. First those for all texts, then those for vectors, and those for scores.
_TEXTS: dict[str, tuple[object, ...]] = {
    "truncate_prompt_tokens": (-1,),
    "truncation_side": ("right",),
    "truncation_direction": ("right", "Right"),
    "truncation_strategy": ("truncate", "smart_truncate"),
    "truncate": (True, "END"),
    "truncation": (True,),
    "auto_truncate": (True,),
    **dict.fromkeys(("max_tokens", "max_tokens_override", "max_tokens_per_doc", "max_tokens_per_query"), (0,)),
    **dict.fromkeys(("max_length", "max_seq_length"), (0,)),
    "add_special_tokens": (True,),
    **dict.fromkeys(("instruction", "instruct", "prompt_name", "query_instruction"), ("",)),
    "softmax": (True,),  # vLLM's oldest name of use_activation
    "chat_template": ("",),
    "chat_template_kwargs": ({},),
    **dict.fromkeys(("images", "image", "audio", "video"), ("", [])),  # would be left out of a multimodal input
}
_VECTORS: dict[str, tuple[object, ...]] = _TEXTS | {
    **dict.fromkeys(("dimensions", "dimension", "output_dimension", "output_dimensionality", "truncate_dim"), (0,)),
    **dict.fromkeys(("input_type", "task", "task_type", "text_type"), ("",)),
    **dict.fromkeys(("late_chunking", "return_multivector"), (False,)),
    "late_chunking_params": (),
    **dict.fromkeys(("normalize", "normalized", "normalize_embeddings", "embd_normalize"), ()),
    **dict.fromkeys(("use_activation", "activation"), ()),
    **dict.fromkeys(("encoding_format", "encoding_type", "output_dtype", "embedding_type"), ("float",)),
    "embedding_types": (["float"],),
    **dict.fromkeys(("embed_dtype", "precision"), ("float32",)),
    "endianness": ("native", "little"),
    "modality": ("text", ["text"]),  # Infinity's and NVIDIA's; an image would be embedded as the text of its URL
}
_SCORES: dict[str, tuple[object, ...]] = _TEXTS | {
    **dict.fromkeys(("max_chunks_per_doc", "max_chunks_per_document", "max_doc_length", "max_query_length"), (0,)),
    "overlap_tokens": (0,),
    "raw_scores": (False,),
    **dict.fromkeys(("use_activation", "activation", "normalize"), (True,)),
    "rank_fields": ([], ["text"]),
}
# Objects in which some clients send their options: Hugging Face's, and copies of calls of OpenAI's client in Python.
_NESTED = ("parameters", "extra_body")


class _Refused:
    """The type of a field that a route doesn't honor."""

    name: ClassVar[str]
    harmless: ClassVar[tuple[object, ...]]
    advice: ClassVar[str] = "leave it out"


class _Options:
    """The type of an object with fields that belong beside it."""

    name: ClassVar[str]
    fields: ClassVar[dict[str, tuple[object, ...]]]


def with_refusals(body: Any) -> Any:
    """Return the type of a body, extended with the fields of other protocols that it doesn't honor.

    Decode it with ``refuse_field``. A route without such fields in a request does no more than before.
    """
    kind = get_args(body)[0] if get_origin(body) is Annotated else body
    if not isinstance(kind, type) or not issubclass(kind, Struct):
        return body
    known = {field.encode_name for field in msgspec.structs.fields(kind)}
    others = _SCORES if {"query", "queries"} & known else _VECTORS
    types = [_refused(name, others[name]) for name in others if name not in known]
    types += [_in_camel_case(name, others[name], is_known=name in known) for name in others if "_" in name]
    types += [type(name, (_Options,), {"name": name, "fields": others}) for name in _NESTED if name not in known]
    fields = [(f"refused_{one.name}", one | None, None) for one in types]
    names = {f"refused_{one.name}": one.name for one in types}
    return msgspec.defstruct(kind.__name__, fields, bases=(kind,), kw_only=True, rename=names)


def _refused(name: str, harmless: tuple[object, ...]) -> type[Any]:
    return type(name, (_Refused,), {"name": name, "harmless": harmless})


def _in_camel_case(name: str, harmless: tuple[object, ...], *, is_known: bool) -> type[Any]:
    """Return the type of a field as clients in JavaScript may write it: ``inputType``."""
    kind = _refused(re.sub("_(.)", lambda found: found[1].upper(), name), harmless)
    if is_known:
        kind.advice = f"write {name}"
    return kind


def refuse_field(kind: type[Any], value: object) -> object:
    """Decode a field of another protocol. Raises InputError for a value that would change numbers."""
    if issubclass(kind, _Options):
        _refuse_options(kind, value)
    # Servers with pydantic read "true" and "-1", too.
    elif not _is_harmless(value, kind.harmless):
        raise InputError(f"{kind.name} isn't supported here, and would change the numbers; {kind.advice}", kind.name)
    return kind()


def _refuse_options(kind: type[_Options], value: object) -> None:
    """Raise InputError for an option that would change numbers, and that isn't read inside of an object."""
    for name, option in value.items() if isinstance(value, dict) else ():
        if name in kind.fields and option is not None and not _is_harmless(option, kind.fields[name]):
            found = f"{kind.name}.{name}"
            raise InputError(f"{found} isn't supported here, and would change the numbers; send {name} itself", found)


def _is_harmless(value: object, harmless: tuple[object, ...]) -> bool:
    is_written = isinstance(value, str) and value.lower() in {str(one).lower() for one in harmless}
    return value in harmless or is_written
