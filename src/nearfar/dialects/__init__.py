"""Wire protocols, and the names that a dialect plugin needs: request bodies in, jobs, replies out.

A plugin is a package with an entry point in the group ``nearfar.dialects`` that names a ``Dialect``.
"""

from nearfar.core.errors import (
    EmptyInput,
    InputError,
    InvalidDimensions,
    ModelNotFound,
    ModelRequired,
    Overloaded,
    RequestError,
    ServingError,
    TooManyItems,
)
from nearfar.core.jobs import (
    Classified,
    ClassifyJob,
    Embedded,
    EmbedJob,
    Ranked,
    RankJob,
    Represented,
    RepresentJob,
    Scored,
    ScoreJob,
)
from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.kit.body.receive import receive_body
from nearfar.dialects.kit.endpoint import Endpoint, PostRoute, json_response
from nearfar.dialects.kit.error_responses import ErrorRow, ErrorTable, WireError
from nearfar.dialects.kit.rendering import render_rows, render_types
from nearfar.dialects.kit.request import AnyRequest
from nearfar.dialects.kit.route_docs import RouteDocs, json_schema, requires, route_docs
from nearfar.serving.service import Service

__all__ = [
    "AnyRequest",
    "Classified",
    "ClassifyJob",
    "Dialect",
    "EmbedJob",
    "Embedded",
    "EmptyInput",
    "Endpoint",
    "ErrorRow",
    "ErrorTable",
    "InputError",
    "InvalidDimensions",
    "ModelNotFound",
    "ModelRequired",
    "Overloaded",
    "PostRoute",
    "RankJob",
    "Ranked",
    "RepresentJob",
    "Represented",
    "RequestError",
    "RouteDocs",
    "ScoreJob",
    "Scored",
    "Service",
    "ServingError",
    "TooManyItems",
    "WireError",
    "json_response",
    "json_schema",
    "receive_body",
    "render_rows",
    "render_types",
    "requires",
    "route_docs",
]
