"""TEI's generic routes, where the body's fields and the model's task decide, and those of the hub's inference API."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, cast

import msgspec
from litestar import Request, Response, post
from litestar.params import FromPath
from msgspec import UNSET

from nearfar.core.caller import Caller
from nearfar.core.errors import InputError
from nearfar.core.jobs import Classified, ClassifyJob, Embedded, EmbedJob, Result
from nearfar.core.types import Task
from nearfar.dialects.kit.body.receive import receive_body
from nearfar.dialects.kit.checks import FIELDS, decode_part
from nearfar.dialects.kit.combined import MAX_JOBS, combine, run_all
from nearfar.dialects.kit.endpoint import Endpoint, PostRoute, encoded_response, numbers_of, record_usage
from nearfar.dialects.kit.rendering import LabelScore, encode_reply, render_rows, sorted_labels
from nearfar.dialects.kit.request import AnyRequest, caller_of, cancel_on_disconnect, fleet_of, service_of
from nearfar.dialects.kit.route_docs import RouteDocs, json_schema
from nearfar.dialects.tei.bodies import (
    DispatchFields,
    EmbedRequest,
    PredictRequest,
    RerankRequest,
    SimilarityRequest,
    VertexReply,
    VertexRequest,
)
from nearfar.dialects.tei.embed import EMBED, EMBED_ALL, EMBED_SPARSE, SIMILARITY
from nearfar.dialects.tei.headers import HEADERS, TOTAL_HEADERS, Job, characters_of, total_headers
from nearfar.dialects.tei.inputs import check_count
from nearfar.dialects.tei.rerank import PREDICT, RERANK

AnyEndpoint = Endpoint[Any, Any, Any]

_fields = msgspec.json.Decoder(DispatchFields)
_vertex = msgspec.json.Decoder(VertexRequest)
_INVOKE = RouteDocs(
    summary="Embed, rank or classify, by the body's fields and the model's task",
    answers=("vectors", "scores"),
    details="Answers Hugging Face's and SageMaker's clients, which use one path for all tasks.",
    body=(Annotated[EmbedRequest, json_schema(properties={"texts": {"type": "null"}})], RerankRequest),
    reply=list[Any],
    example={"inputs": "a cat on the sofa"},
    reply_example=[[0.1431, -0.0766, -0.0241]],
    headers=HEADERS,
)
_VERTEX = RouteDocs(
    summary="Run several requests",
    answers=("vectors", "scores"),
    body=VertexRequest,
    reply=VertexReply,
    example={"instances": [{"inputs": "a cat on the sofa"}, {"query": "a cat", "texts": ["a dog", "a kitten"]}]},
    reply_example={"predictions": [[[0.1431, -0.0766, -0.0241]], [{"index": 1, "score": 0.894}]]},
    headers=TOTAL_HEADERS,
)
# What a body with only ``inputs`` asks for, by the first of these tasks that the model has.
_BY_TASK: Mapping[Task, AnyEndpoint] = {
    "embed": EMBED,
    "sparse": EMBED_SPARSE,
    "multi_vector": EMBED_ALL,
    "classify": PREDICT,
    "rank": RERANK,
}


async def invoke(request: AnyRequest) -> Response[bytes]:
    fields = decode_part(await receive_body(request), _fields)
    with cancel_on_disconnect(request):
        endpoint = await _choose_endpoint(request, fields)
    return await endpoint.answer(request)


async def vertex(request: AnyRequest) -> Response[bytes]:
    """Answer several requests, concurrently."""
    body = decode_part(await receive_body(request), _vertex)
    check_count("instances", body.instances, MAX_JOBS)
    work = run_all(partial(_run, request), body.instances, caller_of(request.scope))
    with cancel_on_disconnect(request):
        jobs, results, replies = zip(*await work, strict=True)
    done = combine(results)
    headers = record_usage(request, done) | total_headers(request, done, sum(map(characters_of, jobs)))
    encoded = await encode_reply(sum(map(len, replies)), lambda: VertexReply([*map(msgspec.Raw, replies)]))
    return encoded_response(cast("bytes", encoded), headers=headers)


async def _choose_endpoint(request: AnyRequest, fields: DispatchFields) -> AnyEndpoint:
    if fields.texts is not UNSET and bytes(fields.texts) != b"null":
        return RERANK
    if fields.inputs is not UNSET and bytes(fields.inputs).startswith(b"{"):
        return SIMILARITY
    tasks = await fleet_of(request).tasks_of(fields.model or None)
    return next(_BY_TASK[task] for task in _BY_TASK if task in tasks)


async def _run(request: AnyRequest, raw: msgspec.Raw, caller: Caller) -> tuple[Job, Result, bytes]:
    """Run one body. Returns the job, what the service returned, and the encoded reply."""
    endpoint = await _choose_endpoint(request, decode_part(raw, _fields))
    body = decode_part(raw, endpoint.decoder)
    job = endpoint.to_job(body)
    done = await endpoint.call(service_of(request), job, caller)
    encoded = await encode_reply(numbers_of(done), lambda: endpoint.reply(body, job, done))
    return job, done, cast("bytes", encoded)


INVOKE = PostRoute(paths=("/invocations",), handler=invoke, docs=_INVOKE)
VERTEX = PostRoute(paths=("/vertex",), handler=vertex, docs=_VERTEX)


# An ordinary route, since GET has this path as well.
@post("/", status_code=200, opt={"docs": _INVOKE})
async def invoke_root(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Answer Hugging Face's and SageMaker's clients, which use one path for all tasks."""
    return await invoke(request)


def _hub_reply(body: EmbedRequest, _: EmbedJob, done: Embedded) -> msgspec.Raw | list[msgspec.Raw]:
    """Return one vector for a text that isn't in a list, as the hub does; TEI returns a list of one."""
    rows = render_rows(done)
    return rows[0] if isinstance(body.inputs, str) else rows


def _hub_classify_job(body: PredictRequest) -> ClassifyJob:
    """Read a list of two texts as two texts, as the hub does; TEI reads it as a pair."""
    inputs = [[one] if isinstance(one, str) else one for one in body.inputs]
    return PREDICT.to_job(body if isinstance(body.inputs, str) else msgspec.structs.replace(body, inputs=inputs))


def _hub_labels(body: PredictRequest, _: ClassifyJob, done: Classified) -> list[list[LabelScore]]:
    """Return a list of labels for each text; TEI returns one list for a text that isn't in a list."""
    top_k = body.parameters.top_k if body.parameters else None
    return [labels[:top_k] for labels in sorted_labels(done)]


_HUB_TASKS: dict[str, AnyEndpoint] = {
    "feature-extraction": msgspec.structs.replace(EMBED, reply=_hub_reply),
    "sentence-similarity": SIMILARITY,
    "text-classification": msgspec.structs.replace(PREDICT, to_job=_hub_classify_job, reply=_hub_labels),
}
_HUB_DOCS = RouteDocs(
    summary="Embed, compare or classify texts, as the hub's inference API",
    answers=("vectors", "scores"),
    details="Without a task in the path, the body and the model's tasks decide.",
    body=(EmbedRequest, SimilarityRequest, PredictRequest),
    reply=list[Any],
    example={"inputs": "a cat on the sofa"},
    reply_example=[0.1431, -0.0766, -0.0241],
    path={"task": "feature-extraction", "model_id": "sentence-transformers/all-MiniLM-L6-v2"},
    path_values={"task": list(_HUB_TASKS)},
    headers=HEADERS,
)


@post(
    ["/pipeline/{task:str}/{model_id:path}", "/hf-inference/models/{model_id:path}", "/models/{model_id:path}"],
    status_code=200,
    opt={"docs": _HUB_DOCS},
)
async def answer_as_hub(
    request: Request[Any, Any, Any], model_id: FromPath[str], task: FromPath[str] = ""
) -> Response[bytes]:
    """Answer for the model in the path, after which ``/pipeline/TASK`` may stand."""
    name, _, last = model_id.strip("/").partition("/pipeline/")
    if (task := task or last) and task not in _HUB_TASKS:
        raise InputError(f"`{task[:50]}` isn't one of this path's tasks: {', '.join(_HUB_TASKS)}; /rerank ranks")
    endpoint = _HUB_TASKS[task or await _hub_task(request, name)]
    return await endpoint.answer_for(request, name)


async def _hub_task(request: AnyRequest, name: str) -> str:
    """Return the task of a path without one."""
    inputs = bytes(decode_part(await receive_body(request), FIELDS).get("inputs", b""))
    if inputs.startswith(b"{"):
        return "sentence-similarity"
    tasks = await fleet_of(request).tasks_of(name)
    return "text-classification" if "classify" in tasks and "embed" not in tasks else "feature-extraction"
