"""vLLM's fields for a chat in place of a text, and for the special tokens of either."""

from __future__ import annotations

from typing import Annotated, Any, cast

from msgspec import Struct

from nearfar.core.errors import InputError
from nearfar.core.jobs import Chat
from nearfar.core.types import TokenIds
from nearfar.dialects.kit.checks import Activation, Inputs, parse_inputs
from nearfar.dialects.kit.route_docs import json_schema

_EMPTY = json_schema(maxProperties=0)
_TEXT_ONLY = json_schema(required=["text"], properties={"text": {"type": "string"}, "type": {"const": "text"}})


class MessagePart(Struct, kw_only=True):
    """A part of a message; only text is supported."""

    type: str = "text"
    text: str | None = None


class Message(Struct, kw_only=True):
    """A message. Several parts of text are lines of one, unless the template takes parts."""

    role: str
    content: str | list[Annotated[MessagePart, _TEXT_ONLY]]
    tool_calls: Annotated[list[Any], json_schema(maxItems=0)] | None = None


class ChatInput(Activation, kw_only=True):
    """``messages`` become one text by the model's own chat template, which has the special tokens.

    ``add_special_tokens`` is true by default for ``input``, and false for ``messages``.
    """

    messages: list[Message] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template: Annotated[str, json_schema(maxLength=0)] | None = None
    chat_template_kwargs: Annotated[dict[str, Any], _EMPTY] | None = None

    @property
    def adds_special_tokens(self) -> bool:
        """Return whether the tokenizer adds its special tokens."""
        return not self.messages if self.add_special_tokens is None else self.add_special_tokens

    def inputs(self, found: Inputs | None) -> tuple[str | TokenIds | Chat, ...]:
        """Return the chat, or a text, texts, or token ids of one text or of several.

        Raises InputError for both, and for what isn't supported; EmptyInput if there are none.
        """
        if self.messages:
            return (self.chat(has_input=found is not None),)
        if found is None:
            raise InputError("Object missing required field `input`")
        return parse_inputs(found)

    def chat(self, *, has_input: bool) -> Chat:
        """Return the messages and how to render them. Raises InputError for what isn't supported."""
        if has_input:
            raise InputError("messages and input can't both be sent", "messages")
        if self.add_generation_prompt and self.continue_final_message:
            raise InputError("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
        for name in ("chat_template", "chat_template_kwargs"):
            if getattr(self, name):
                raise InputError(f"{name}: only the model's own chat template is applied; leave it out", name)
        return Chat(
            messages=tuple(_message(index, message) for index, message in enumerate(self.messages or ())),
            add_generation_prompt=bool(self.add_generation_prompt),
            continue_final_message=bool(self.continue_final_message),
        )


def _message(index: int, message: Message) -> tuple[str, tuple[str, ...]]:
    if message.tool_calls:
        raise InputError(f"messages[{index}]: tool_calls aren't supported; leave them out", "messages")
    if isinstance(message.content, str):
        return message.role, (message.content,)
    texts = [part.text if part.type == "text" else None for part in message.content]
    if None in texts:
        raise InputError(f"messages[{index}].content: the models here read text only", "messages")
    return message.role, tuple(cast("list[str]", texts))
