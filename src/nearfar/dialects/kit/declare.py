"""Builds an Endpoint that decodes the body type of its RouteDocs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from nearfar.core.caller import Caller
from nearfar.dialects.kit.endpoint import Body, Done, Endpoint, Job
from nearfar.dialects.kit.route_docs import RouteDocs
from nearfar.serving.service import Service


def endpoint(
    docs: RouteDocs,
    to_job: Callable[[Body], Job],
    call: Callable[[Service, Job, Caller], Coroutine[Any, Any, Done]],
    reply: Callable[[Body, Job, Done], object],
    *,
    strict: bool = True,
    **options: Any,
) -> Endpoint[Body, Job, Done]:
    """Return an endpoint that decodes the documented body. ``options`` are other fields of Endpoint.

    With ``strict`` false it also accepts numbers and booleans that are written as strings.
    """
    decoder: msgspec.json.Decoder[Body] = msgspec.json.Decoder(docs.body, strict=strict)
    return Endpoint(docs=docs, decoder=decoder, to_job=to_job, call=call, reply=reply, **options)
