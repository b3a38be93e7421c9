"""SageMaker's path with vLLM's bodies of pairs to score and of documents to rank."""

from __future__ import annotations

from typing import Any

from litestar import Response

from nearfar.dialects.kit.body.receive import receive_body
from nearfar.dialects.kit.checks import FIELDS, decode_part
from nearfar.dialects.kit.endpoint import PostRoute
from nearfar.dialects.kit.request import AnyRequest
from nearfar.dialects.kit.route_docs import RANKING, RouteDocs
from nearfar.dialects.vllm.rerank import RerankRequest, rerank
from nearfar.dialects.vllm.routes import SCORE, ScoreRequest

_PAIRS = ("text_1", "data_1", "queries")
_DOCS = RouteDocs(
    summary="Score pairs or rank documents, by the body's fields",
    answers=("scores",),
    body=(RerankRequest, ScoreRequest),
    reply=dict[str, Any],
    example=RANKING,
    examples={"pairs": {"text_1": "Where is the cat?", "text_2": ["The cat sat on the mat."]}},
)


async def _answer(request: AnyRequest) -> Response[bytes]:
    fields = decode_part(await receive_body(request), FIELDS)
    is_score = any(bytes(fields.get(name, b"null")) != b"null" for name in _PAIRS)
    return await (SCORE.answer(request) if is_score else rerank(request))


INVOKE = PostRoute(paths=("/invocations",), fields=(*_PAIRS, "documents"), precedence=1, handler=_answer, docs=_DOCS)
