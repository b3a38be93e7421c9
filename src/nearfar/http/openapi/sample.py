"""JSON Schema → an example of an answer, so that routes need not repeat their types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
_HASH = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_VECTOR = [0.1431, -0.0766, -0.0241]
# Type → the value of a field by its name, and as "" of all other fields. They describe the built-in model.
_VALUES: Mapping[str, Mapping[str, object]] = {
    "null": {"": None},
    "object": {
        "": {},
        "model_info": {"general.architecture": "bert", "bert.context_length": 256, "bert.embedding_length": 384},
        "prompts": {"query": "query: "},
    },
    "array": {
        "aliases": [],
        "capabilities": ["embedding", "rerank"],
        "default_endpoints": ["embed", "rerank"],
        "endpoints": ["embed", "rerank"],
        "labels": [],
        "probs": [0.06, 0.94],
        "tasks": ["embed", "rank"],
        "token_strs": ["[CLS]", "a", "cat", "[SEP]"],
        "tokens": [101, 1037, 4937, 102],
        "warnings": [],
    },
    "boolean": {"": True, **dict.fromkeys(("pin", "score_is_probability", "special", "truncated"), False)},
    "integer": {
        "": 7,  # tokens, mostly
        **dict.fromkeys(("index", "requests", "size_vram", "start", "token_dim", "vocabulary"), 0),
        **dict.fromkeys(("token_reduction", "truncated_tokens"), 0),
        **dict.fromkeys(("batch_size", "num_passages", "num_texts", "returned_passages", "top_k"), 1),
        **dict.fromkeys(("total_passages", "total_texts"), 1),
        **dict.fromkeys(("context_length", "max_input_length", "max_model_len", "max_tokens"), 256),
        **dict.fromkeys(("dim", "embedding_dimension"), 384),
        **dict.fromkeys(("load_duration", "total_duration"), 14143917),
        **dict.fromkeys(("bytes", "file_bytes", "size"), 90868376),
        "count": 4,
        "created": 1764000000,
        "id": 1037,
        "max_batch_tokens": 4096,
        "max_concurrent_requests": 2343,
        "num_classes": 2,
        "parameters": 22713216,
        "prompt_eval_count": 7,
        "query_length": 17,
        "stop": 17,
    },
    "number": {
        "": 0.83,
        **dict.fromkeys(("timestamp", "unix"), 1764000000.0),
        "int8_range": 0.204124,
        "processing_time": 0.0142,
        "processing_time_ms": 14.2,
        "uptime": 12.5,
    },
    "string": {
        "": "a cat on the sofa",
        **dict.fromkeys(("model", "model_id", "model_info", "model_name", "name", "served_model_name"), _MODEL),
        **dict.fromkeys(("backend", "engine"), "torch"),
        **dict.fromkeys(("created_at", "expires_at", "modified_at", "timestamp"), "2026-11-24T16:00:00Z"),
        **dict.fromkeys(("dtype", "model_dtype"), "float32"),
        **dict.fromkeys(("families", "family"), "bert"),
        **dict.fromkeys(("model_sha", "revision"), f"sha256:{_HASH}"),
        "architecture": "BertModel",
        "default_prompt": "query",
        "device": "cpu",
        "digest": _HASH,
        "dtype_reason": "bfloat16 loses too much: cosine to float32 min 0.99987, mean 0.99995 on 12 probes",
        "docs": "/docs",
        "id": "7e3d5b1c-4a52-4f0e-9a53-2c8a3d1f0b6e",
        "label": "positive",
        "message": "nearfar is running",
        "method": "embedding_similarity",
        "modelfile": f"FROM {_MODEL}",
        "owned_by": "sentence-transformers",
        "parameter_size": "22.71M",
        "parameters": f"{'num_ctx':<30} 256",
        "pooling": "mean",
        "pooling_source": "1_Pooling/config.json",
        "prompts_source": "config_sentence_transformers.json",
        "quantization_level": "F32",
        "query": "Where is the cat?",
        "score": "(1 + cosine) / 2 of the query's and the document's vectors",
        "source": "builtin",
        "status": "healthy",
        "strategy": "truncate",
        "tokenizer_source": "tokenizer.json",
        "verified": "verified against sentence-transformers 6.2.0 on 39 samples",
        "version": "0.1.0",
    },
}


def sample(schema: Json, components: Mapping[str, Json], name: str = "") -> Any:
    """Return a value that the schema allows, or {} for an object without fields. ``name`` is the field's.

    Optional fields without a default are left out.
    """
    if "$ref" in schema:
        return sample(components[schema["$ref"].rpartition("/")[2]], components, name)
    if "anyOf" in schema:
        return sample(next(one for one in schema["anyOf"] if one.get("type") != "null"), components, name)
    if "properties" in schema:
        required = schema.get("required", ())
        fields = {field: kind for field, kind in schema["properties"].items() if field in required or "default" in kind}
        return {field: sample(kind, components, field) for field, kind in fields.items()}
    values = _VALUES.get(schema.get("type", ""), {"": {}})
    if schema.get("type") == "array" and name not in values:
        items = schema.get("items", {})
        return _VECTOR if items == {"type": "number"} else [sample(items, components, name)]
    named = [values[name]] if name in values else []
    default = [schema["default"]] if "default" in schema else []
    listed = [schema["const"]] if "const" in schema else schema.get("examples") or schema.get("enum") or []
    return [*listed, *named, *default, values.get("")][0]
