"""OpenAI's embeddings, models, files, uploads and batches: https://platform.openai.com/docs/api-reference/embeddings."""

from __future__ import annotations

from nearfar.dialects.kit.base import Dialect
from nearfar.dialects.openai.azure import embed_with_deployment
from nearfar.dialects.openai.batch.batches import cancel_batch, create_batch, get_batch, list_batches
from nearfar.dialects.openai.batch.files import create_file, delete_file, get_file, get_file_content, list_files
from nearfar.dialects.openai.batch.uploads import add_upload_part, cancel_upload, complete_upload, create_upload
from nearfar.dialects.openai.embeddings import EMBEDDINGS, VENDOR_MODELS
from nearfar.dialects.openai.errors import ERRORS, ErrorReply, render_error
from nearfar.dialects.openai.headers import error_headers
from nearfar.dialects.openai.lm_studio import get_lm_studio_model, list_lm_studio_models, list_lm_studio_models_v1
from nearfar.dialects.openai.models import get_model, list_infinity_models, list_models

dialect = Dialect(
    name="openai",
    routes=[
        EMBEDDINGS.route(
            "/v1/embeddings", "/embeddings", "/openai/v1/embeddings", "/api/v0/embeddings", "/api/v1/embeddings"
        ),
        EMBEDDINGS.route("/invocations", fields=("input", "messages"), precedence=3),
    ],
    handlers=[
        list_models,
        list_infinity_models,
        get_model,
        embed_with_deployment,
        list_lm_studio_models,
        list_lm_studio_models_v1,
        get_lm_studio_model,
        create_file,
        list_files,
        get_file,
        get_file_content,
        delete_file,
        create_upload,
        add_upload_part,
        complete_upload,
        cancel_upload,
        create_batch,
        list_batches,
        get_batch,
        cancel_batch,
    ],
    errors=ERRORS,
    render_error=render_error,
    error_reply=ErrorReply,
    about="OpenAI's embeddings and models: https://platform.openai.com/docs/api-reference/embeddings",
    error_headers=error_headers,
    prefixes=(
        "/v1",
        "/v1/embeddings",
        "/embeddings",
        "/models",
        "/v1/v1/models",
        "/openai",
        "/api/v0",
        "/files",
        "/uploads",
        "/batches",
    ),
    vendor_models=VENDOR_MODELS,
)
