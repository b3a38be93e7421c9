"""Azure's path of OpenAI's embeddings, which has the model's name in it."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response, post
from litestar.params import FromPath

from nearfar.dialects.kit.route_docs import RouteDocs
from nearfar.dialects.openai.embeddings import EMBEDDINGS

_DOCS: RouteDocs = msgspec.structs.replace(
    EMBEDDINGS.docs,
    summary="Vectors of texts, or of token ids, from a deployment of Azure's",
    path={"owner": "sentence-transformers", "deployment": "all-MiniLM-L6-v2"},
    example={"input": "a cat on the sofa"},
    examples={},
)


@post(
    ["/openai/deployments/{deployment:str}/embeddings", "/openai/deployments/{owner:str}/{deployment:str}/embeddings"],
    status_code=200,
    opt={"docs": _DOCS},
)
async def embed_with_deployment(
    request: Request[Any, Any, Any], deployment: FromPath[str], owner: FromPath[str | None] = None
) -> Response[bytes]:
    """Answer as /v1/embeddings does for the model that is called like the deployment, OWNER/NAME included."""
    return await EMBEDDINGS.answer_for(request, f"{owner}/{deployment}" if owner else deployment)
