"""vLLM's /pooling: a vector for each text, a vector for each token, or the scores of labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from litestar import Response
from msgspec import Struct

from nearfar.core.errors import InputError
from nearfar.core.jobs import Classified, ClassifyJob, Embedded, EmbedJob, Represented, RepresentJob
from nearfar.core.types import FloatArray, ModelInfo, Task
from nearfar.dialects.kit.body.receive import receive_body
from nearfar.dialects.kit.checks import decode_part
from nearfar.dialects.kit.endpoint import Endpoint, PostRoute
from nearfar.dialects.kit.rendering import ArrayFormat, Binary, binary_reply, literal_error
from nearfar.dialects.kit.request import AnyRequest, cancel_on_disconnect, fleet_of
from nearfar.dialects.kit.route_docs import NUMBERS, AtLeastOne, RouteDocs, json_schema, requires
from nearfar.dialects.vllm.routes import INPUTS, ListReply, NotEmptyInputs, RequestId, envelope
from nearfar.serving.postprocess.pooling import normalize
from nearfar.serving.service import Service

_FORMATS = ("float", "base64", "bytes", "bytes_only")
_TASKS = ("embed", "classify", "token_embed")
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_ARRAY = json_schema(anyOf=[NUMBERS, {"type": "array", "items": NUMBERS}, _BASE64])


class PoolingRequest(ArrayFormat, kw_only=True):
    """The body of POST /pooling. Without a ``task`` the model decides: embed, else classify, else token_embed."""

    model: str | None = None
    input: NotEmptyInputs | None = None
    task: Annotated[str, json_schema(enum=list(_TASKS))] | None = None
    dimensions: AtLeastOne | None = None
    request_id: RequestId | None = None


class PoolingData(Struct):
    """A text's vector, its scores, or its vectors one for each token."""

    index: int
    data: Annotated[msgspec.Raw, _ARRAY]
    object: Literal["pooling"] = "pooling"


class _Choice(Struct):
    """The fields by which the task is chosen."""

    task: str | None = None
    model: str | None = None


def _checked(body: PoolingRequest) -> dict[str, Any]:
    """Return the fields that all jobs have. Raises InputError for what would change numbers if it were ignored."""
    body.check_format()
    if body.encoding_format not in {None, *_FORMATS}:
        raise literal_error("encoding_format", _FORMATS, body.encoding_format)
    texts = {"inputs": body.inputs(body.input), "special": body.adds_special_tokens}
    return {"model": body.model or None, **texts, **body.truncation()}


def _embed_job(body: PoolingRequest) -> EmbedJob:
    return EmbedJob(**_checked(body), vocabulary=None, dimensions=body.dimensions, normalize=body.activates)


def _classify_job(body: PoolingRequest) -> ClassifyJob:
    _refuse_dimensions(body)
    return ClassifyJob(**_checked(body), raw_scores=body.wants_logits)


def _token_job(body: PoolingRequest) -> RepresentJob:
    _refuse_dimensions(body)
    return RepresentJob(**_checked(body))


def _refuse_dimensions(body: PoolingRequest) -> None:
    if body.dimensions is not None:
        raise InputError("dimensions is only for the task embed", "dimensions")


def _token_arrays(body: PoolingRequest, done: Represented) -> list[FloatArray]:
    """Return (T, D) for each text, with unit rows where the model's vectors have them, as in vLLM."""
    arrays = [text.multi_vector for text in done.texts if text.multi_vector is not None]
    is_unit = _has_unit_vectors(done.info) if body.activates is None else body.activates
    return [normalize(array, "a token's vector") for array in arrays] if is_unit else arrays


def _has_unit_vectors(info: ModelInfo) -> bool:
    return info.normalized or "multi_vector" in info.tasks


def _reply(
    body: PoolingRequest, done: Embedded | Classified | Represented, arrays: Sequence[FloatArray]
) -> ListReply[PoolingData] | Binary:
    about = envelope("pooling", done, body.request_id)
    if body.is_binary:
        return binary_reply(arrays, body, msgspec.to_builtins(about))
    return ListReply(data=[PoolingData(index, body.render(array)) for index, array in enumerate(arrays)], **about)


_DOCS = RouteDocs(
    summary="Embed or classify texts, or embed each of their tokens",
    answers=("vectors", "scores"),
    body=requires(PoolingRequest, input=INPUTS),
    reply=ListReply[PoolingData],
    example={"input": "a cat", "task": "token_embed"},
    examples={
        "embed": {"input": [[101, 1037, 4937, 102]], "task": "embed", "encoding_format": "base64"},
        "bytes": {"input": ["a cat", "a dog"], "task": "embed", "encoding_format": "bytes"},
    },
    reply_example={"data": [{"index": 0, "data": [[0.1431, -0.0766]], "object": "pooling"}]},
    has_binary_reply=True,
)


def _endpoint(
    to_job: Callable[[PoolingRequest], Any], call: Any, arrays: Callable[[PoolingRequest, Any], Sequence[FloatArray]]
) -> Endpoint[PoolingRequest, Any, Any]:
    return Endpoint(_DOCS, to_job, call, lambda body, _, done: _reply(body, done, arrays(body, done)))


# By task, in the order in which the model decides.
_ENDPOINTS: Mapping[str, tuple[Task, Endpoint[PoolingRequest, Any, Any]]] = {
    "embed": ("embed", _endpoint(_embed_job, Service.embed, lambda _, done: [*done.vectors])),
    "classify": ("classify", _endpoint(_classify_job, Service.classify, lambda _, done: [*done.scores])),
    "token_embed": ("multi_vector", _endpoint(_token_job, Service.token_vectors, _token_arrays)),
}
_choice = msgspec.json.Decoder(_Choice)


async def _answer(request: AnyRequest) -> Response[bytes]:
    choice = decode_part(await receive_body(request), _choice)
    with cancel_on_disconnect(request):
        tasks = await fleet_of(request).tasks_of(choice.model or None)
    task = choice.task or next((name for name, (needed, _) in _ENDPOINTS.items() if needed in tasks), "embed")
    return await _find_endpoint(task, tasks).answer(request)


def _find_endpoint(task: str, tasks: Sequence[Task]) -> Endpoint[PoolingRequest, Any, Any]:
    """Return the task's endpoint. Raises InputError, in vLLM's words, for a task that the model doesn't have."""
    if task == "plugin":
        raise InputError("No IOProcessor plugin installed.", "task")
    # An embedding model has a vector for each token, too.
    supported = [
        name
        for name, (needed, _) in _ENDPOINTS.items()
        if needed in tasks or (name == "token_embed" and "embed" in tasks)
    ]
    if task not in supported:
        found = ", ".join(supported) or "none"
        raise InputError(f"Unsupported task: {task[:50]!r}; this model supports {found}", "task")
    return _ENDPOINTS[task][1]


POOLING = PostRoute(paths=("/pooling",), handler=_answer, docs=_DOCS)
