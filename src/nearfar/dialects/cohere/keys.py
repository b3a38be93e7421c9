"""Cohere's question whether a key is valid: https://docs.cohere.com/reference/checkapikey."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, post

from nearfar.dialects.cohere.bodies import KeyReply
from nearfar.dialects.cohere.envelope import USUAL_HEADERS, usual_headers
from nearfar.dialects.kit.base import json_response
from nearfar.dialects.kit.route_docs import route_docs

_CHECK = route_docs("Whether the key is valid", reply=KeyReply, reply_example={"valid": True}, headers=USUAL_HEADERS)


@post(["/v1/check-api-key", "/v1/v1/check-api-key"], status_code=200, opt=_CHECK)
async def check_api_key(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Say that it is: a request with a wrong key doesn't come this far. The clients send no body."""
    return json_response(KeyReply(valid=True), headers=usual_headers(request))
