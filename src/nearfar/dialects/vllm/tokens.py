"""vLLM's routes for tokens."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Struct

from nearfar.core.errors import InputError
from nearfar.core.jobs import Chat, DetokenizeJob, Tokenized, TokenizeJob
from nearfar.dialects.kit.body.chat import ChatInput, Message
from nearfar.dialects.kit.endpoint import Endpoint
from nearfar.dialects.kit.route_docs import RouteDocs, json_schema, requires_any
from nearfar.dialects.vllm.llama_cpp import TokensReply, tokens_reply
from nearfar.serving.service import Service

TokenId = Annotated[int, json_schema(minimum=0)]


class TokenizeRequest(Struct, kw_only=True):
    """The body of POST /tokenize for a prompt, or for messages. Tokens are never cut here.

    As in vLLM, ``add_generation_prompt`` is true by default here.
    ``content`` is llama.cpp's name for it, with ``add_special`` (false by default) and ``with_pieces``.
    """

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template: Annotated[str, json_schema(maxLength=0)] | None = None
    chat_template_kwargs: Annotated[dict[str, Any], json_schema(maxProperties=0)] | None = None
    return_token_strs: bool | None = None
    content: str | None = None
    add_special: bool | None = None
    with_pieces: bool | None = None
    truncate_prompt_tokens: Annotated[int, json_schema(const=-1)] | None = None


class DetokenizeRequest(Struct, kw_only=True):
    """The body of POST /detokenize."""

    model: str | None = None
    tokens: list[TokenId]


class TokenizeReply(Struct):
    """The body of an answer to /tokenize. ``token_strs`` are the tokens as in the vocabulary, if requested."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizeReply(Struct):
    """The body of an answer to /detokenize."""

    prompt: str


def _tokenize_job(body: TokenizeRequest) -> TokenizeJob:
    if body.truncate_prompt_tokens not in {None, -1}:
        raise InputError("truncate_prompt_tokens: /tokenize returns all tokens; cut the list that it returns")
    if body.messages:
        return TokenizeJob(model=body.model or None, texts=(_chat(body),), special=bool(body.add_special_tokens))
    if body.prompt is None and body.content is not None:
        return TokenizeJob(model=body.model or None, texts=(body.content,), special=bool(body.add_special))
    if body.prompt is None:
        raise InputError("Object missing required field `prompt`")
    return TokenizeJob(model=body.model or None, texts=(body.prompt,), special=body.add_special_tokens is not False)


def _chat(body: TokenizeRequest) -> Chat:
    ends = body.continue_final_message if body.add_generation_prompt is None else not body.add_generation_prompt
    fields = ChatInput(
        messages=body.messages,
        add_generation_prompt=not ends,
        continue_final_message=body.continue_final_message,
        chat_template=body.chat_template,
        chat_template_kwargs=body.chat_template_kwargs,
    )
    return fields.chat(has_input=body.prompt is not None)


def _tokenize_reply(body: TokenizeRequest, _: TokenizeJob, done: Tokenized) -> TokenizeReply | TokensReply:
    if body.prompt is None and not body.messages:
        return tokens_reply(done.texts[0], with_pieces=bool(body.with_pieces))
    tokens = done.texts[0].tokens
    names = [token.token for token in tokens] if body.return_token_strs else None
    return TokenizeReply(len(tokens), done.info.max_tokens, [token.id for token in tokens], names)


def _detokenize_job(body: DetokenizeRequest) -> DetokenizeJob:
    return DetokenizeJob(model=body.model or None, ids=tuple(body.tokens))


_TOKENIZE = RouteDocs(
    summary="Tokenize a prompt",
    answers=("tokens",),
    counts=False,
    body=requires_any(TokenizeRequest, {"prompt": {"type": "string"}}, {"content": {"type": "string"}}),
    reply=(TokenizeReply, TokensReply),
    example={"prompt": "a cat"},
)
TOKENIZE = Endpoint(_TOKENIZE, _tokenize_job, Service.tokenize, _tokenize_reply)
_DETOKENIZE = RouteDocs(
    summary="Convert token ids to text",
    answers=("tokens",),
    counts=False,
    body=DetokenizeRequest,
    reply=DetokenizeReply,
    example={"tokens": [1037, 4937]},
)
DETOKENIZE = Endpoint(_DETOKENIZE, _detokenize_job, Service.detokenize, lambda _, __, text: DetokenizeReply(text))
