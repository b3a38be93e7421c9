"""The body of a request for embeddings → a job, with OpenAI's words for what is wrong with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, cast

import msgspec
from msgspec import Struct

from nearfar.core import errors
from nearfar.core.jobs import EmbedJob, TokenLimits
from nearfar.dialects.kit.request import decode_json
from nearfar.dialects.kit.route_docs import AtLeastOne, json_schema
from nearfar.models.tokenization.openai_tokens import find_vocabulary

if TYPE_CHECKING:
    from nearfar.core.types import TokenIds
    from nearfar.dialects.kit.rendering import Encoding

_MAX_INPUTS = 2048
_TOKEN_LIMITS = TokenLimits(per_text=8192, per_request=300_000)
_REFERENCE = "Please check the API reference: https://platform.openai.com/docs/api-reference."

_MISSING = re.compile(r"missing required field `(\w+)`")  # msgspec's wording of a ValidationError
_AT = re.compile(r" - at `\$\.(\w+)")


_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_TEXT = {"type": "string", "minLength": 1}
_INPUT = {
    "anyOf": [
        _TEXT,
        {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": _MAX_INPUTS},
        _IDS,
        {"type": "array", "items": _IDS, "minItems": 1, "maxItems": _MAX_INPUTS},
    ]
}


class EmbeddingsRequest(Struct, kw_only=True):
    """The body of POST /v1/embeddings. Null means absent; fields not named here, such as ``user``, are ignored.

    ``input`` is still JSON: a text, texts, token ids of one text, or of several.
    """

    model: str | None = None
    input: Annotated[msgspec.Raw, json_schema(**_INPUT)]
    encoding_format: Annotated[str, json_schema(enum=["float", "base64"])] | None = None
    dimensions: AtLeastOne | None = None


_Input = str | list[str | int | list[int]]
decoder = msgspec.json.Decoder(EmbeddingsRequest)
_input_decoder: msgspec.json.Decoder[_Input] = msgspec.json.Decoder(_Input)


def to_job(body: EmbeddingsRequest) -> EmbedJob:
    """Turn the body into a job. Raises an InputError in OpenAI's words, or a ValidationError for an odd ``input``."""
    said = _decode_input(bytes(body.input))
    if not body.model:
        raise errors.ModelRequired("you must provide a model parameter")
    return EmbedJob(
        model=body.model,
        inputs=_inputs(said),
        dimensions=body.dimensions,
        vocabulary=find_vocabulary(body.model),
        token_limits=_TOKEN_LIMITS,
    )


def _decode_input(raw: bytes) -> _Input:
    """Decode ``input``, unless it is plain to see that it has far too many items: making them would take a second.

    Every inner list has a bracket, and in a list that begins with one there can't be a text. ``","`` stands between
    two texts, and otherwise only at the end of one: inside, a quote has a backslash before it.
    """
    lists, texts = raw.count(b"[") - 1 if raw.startswith(b"[[") else 0, raw.count(b'","') // 2
    if max(lists, texts) > _MAX_INPUTS:
        raise errors.TooManyItems("input", max(lists, texts), _MAX_INPUTS)
    try:
        return decode_json(raw, _input_decoder)
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(f"{error} - at `$.input`") from error


def _inputs(said: _Input) -> tuple[str | TokenIds, ...]:
    """Sort out the four legal forms: a text, texts, token ids of one text, token ids of several."""
    if isinstance(said, str):
        said = [said]
    if not said or [] in said:
        raise errors.EmptyInput("Invalid 'input': input cannot be an empty array.")
    kinds = set(map(type, said))
    if len(kinds) != 1:
        raise errors.InputError(f"'$.input' is invalid. {_REFERENCE}")
    if "" in said:
        raise errors.EmptyInput("Invalid 'input': input cannot be an empty string.")
    if kinds == {int}:
        return (cast("TokenIds", tuple(said)),)
    if len(said) > _MAX_INPUTS:
        raise errors.TooManyItems("input", len(said), _MAX_INPUTS)
    return tuple(cast("list[str]", said)) if kinds == {str} else tuple(map(tuple, cast("list[list[int]]", said)))


def encoding_of(said: str | None) -> Encoding:
    if said is None or said == "float":
        return "float"
    if said == "base64":
        return "base64"
    raise errors.InputError(
        f"Invalid value for 'encoding_format' = {said[:50]}. Supported values: ['float', 'base64']."
    )


def bad_shape(error: msgspec.ValidationError) -> errors.InputError:
    """Name the field that is wrong, in OpenAI's words."""
    found = _MISSING.search(str(error)) or _AT.search(str(error))
    return errors.InputError(f"'$.{found[1]}' is invalid. {_REFERENCE}" if found else f"'$' is invalid. {_REFERENCE}")
