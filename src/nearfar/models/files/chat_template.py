"""Renders a checkpoint's chat template with placeholders for the query, the document and an instruction.

Templates are programs, which run in jinja2's sandbox as they do in transformers. A template that does anything to the
texts but insert them is refused, since its result couldn't be reused for other texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from nearfar.core.errors import CheckpointError
from nearfar.models.files.config import (
    PROMPTS_FILE,
    PromptsConfig,
    SentenceConfig,
    SpecialToken,
    TokenizerConfig,
    find_sentence_file,
)
from nearfar.models.files.json_files import read_optional_json
from nearfar.models.recipe.recipe import DOCUMENT, INSTRUCTION, QUERY, ChatTemplate, PairPrompt

if TYPE_CHECKING:
    from nearfar.models.files.template_limits import LimitedEnvironment

Render: TypeAlias = Callable[..., str]  # roles and contents, and the template's variables → the text to tokenize

_SPECIAL: tuple[SpecialToken, ...] = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# Arguments of apply_chat_template for the length of the ids, and others that aren't the template's.
_SIZES = {"padding", "truncation", "max_length", "return_tensors"}
_CALL = {"chat_template", "continue_final_message", "documents", "return_dict", "tokenize", "tools"}
# What sentence-transformers takes as a sign that the template reads structured messages.
_STRUCTURED = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")
# Stands for a text while a template is rendered; its spaces and capitals reveal trimming and the like.
_MARK = " Xq{}zX "
_PLACEHOLDERS = {_MARK.format("query"): QUERY, _MARK.format("document"): DOCUMENT, _MARK.format("system"): INSTRUCTION}


class ChatTemplateError(Exception):
    """The folder's chat template is missing, fails, or doesn't fit; the message is the reason."""


class _TokenizerConfig(TokenizerConfig):
    """tokenizer_config.json; it may have several templates by name."""

    chat_template: str | list[dict[str, str]] | None = None


def render_pair(folder: Path) -> PairPrompt:
    """Render the folder's template with placeholders; it takes an instruction if that appears once.

    Raises ChatTemplateError if there is no template for pairs, CheckpointError for unsupported options.
    """
    found = _read_template(folder)
    prompts = read_optional_json(folder / PROMPTS_FILE, PromptsConfig)
    default = (prompts.prompts or {}).get(prompts.default_prompt_name or "")  # the default instruction for pairs
    program = compile_template(found, dated=False)

    def render(*system: str) -> str:
        messages = [("system", content) for content in system]
        return _replace_marks(program([*messages, *((role, _MARK.format(role)) for role in ("query", "document"))]))

    plain = render(default) if default else render()
    try:
        instructed = render(_MARK.format("system"))
    except ChatTemplateError:
        instructed = ""
    takes_instruction = instructed.count(INSTRUCTION) == 1
    return PairPrompt(segments=(plain,), segments_with_instruction=(instructed,) if takes_instruction else None)


def has_pair_template(folder: Path) -> bool:
    """Return whether the folder's template names a query and a document, as a reranker's does."""
    source = _find_source(folder, read_optional_json(folder / "tokenizer_config.json", _TokenizerConfig))
    return all(re.search(rf"[\"']{role}[\"']", source) for role in ("query", "document"))


def has_chat_template(folder: Path) -> bool:
    """Return whether the folder's tokenizer has a chat template."""
    return bool(_find_source(folder, read_optional_json(folder / "tokenizer_config.json", _TokenizerConfig)))


def _replace_marks(rendered: str) -> str:
    """Replace the marks by the placeholders.

    Raises ChatTemplateError unless query and document appear once, in order.
    """
    query, document, _ = _PLACEHOLDERS
    if any(rendered.count(mark) != 1 for mark in (query, document)):
        raise ChatTemplateError("its chat template doesn't insert the query and the document unchanged, once each")
    if rendered.index(query) > rendered.index(document):
        raise ChatTemplateError("its chat template puts the document before the query")
    if any(placeholder in rendered for placeholder in _PLACEHOLDERS.values()):
        raise ChatTemplateError(f"its chat template itself contains {' or '.join(_PLACEHOLDERS.values())}")
    for mark, placeholder in _PLACEHOLDERS.items():
        rendered = rendered.replace(mark, placeholder)
    return rendered


def _find_source(folder: Path, tokenizer: _TokenizerConfig) -> str:
    """Return the template's text; empty if there is none."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    source = tokenizer.chat_template
    if isinstance(source, list):
        source = next((named.get("template") for named in source if named.get("name") == "default"), None)
    return source or ""


def read_chat(folder: Path) -> ChatTemplate:
    """Return the template that single texts go through. Raises CheckpointError if there is none, or it isn't supported.

    A template that refers to the text's task would need it with each text.
    """
    try:
        found = _read_template(folder)
    except ChatTemplateError as error:
        raise CheckpointError(
            f"{folder}: its texts go through a chat template by sentence_bert_config.json, but {error}; add its "
            "chat_template.jinja"
        ) from error
    if re.search(r"\btask\b", found.source):
        raise CheckpointError(
            f"{folder}: its chat template refers to the text's task, which isn't supported; use a model with prompts"
        )
    return found


def find_chat(folder: Path) -> ChatTemplate | None:
    """Return the folder's chat template for a request's messages; None if there is none."""
    try:
        return _read_template(folder)
    except ChatTemplateError:
        return None


def _read_template(folder: Path) -> ChatTemplate:
    """Read the template, and the options that sentence-transformers passes to it.

    Raises ChatTemplateError if there is none.
    """
    tokenizer = read_optional_json(folder / "tokenizer_config.json", _TokenizerConfig)
    source = _find_source(folder, tokenizer)
    if not source:
        raise ChatTemplateError("it has no chat template")
    file = find_sentence_file(folder)
    config = read_optional_json(file, SentenceConfig)
    options = {
        name: value for name, value in config.processing_kwargs.get("chat_template", {}).items() if name not in _SIZES
    }
    keeps_suffix = options.pop("restore_suffix", True)
    other = next((name for name in options if name in _CALL), None)
    if other:
        raise CheckpointError(
            f"{file}: processing_kwargs {other} isn't supported; remove it to serve the model without"
        )
    message_format = config.modality_config.get("message", {}).get("format", "auto")
    structured = any(mark in source for mark in _STRUCTURED) if message_format == "auto" else message_format != "flat"
    tokens = {f"{name}_token": tokenizer.special_token(name) for name in _SPECIAL}
    defaults = {"tools": None, "documents": None, "add_generation_prompt": False}
    return ChatTemplate(
        source=source,
        variables=defaults | {name: token for name, token in tokens.items() if token} | options,
        structured=structured,
        keeps_suffix=bool(keeps_suffix),
    )


def compile_template(template: ChatTemplate, *, dated: bool = True) -> Render:
    """Return a function that renders messages as transformers' apply_chat_template does.

    It raises ChatTemplateError for a template that fails, and for one that contains the date unless ``dated``.
    """
    try:
        from jinja2 import TemplateError
    except ImportError as error:
        raise CheckpointError("a chat template needs jinja2; pip install jinja2") from error
    environment = _environment(dated=dated)
    failures = (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError, MemoryError)
    try:
        program = environment.from_string(template.source)
    except (TemplateError, RecursionError, MemoryError, SyntaxError) as error:
        raise ChatTemplateError(f"its chat template can't be rendered ({error})") from error

    def render(messages: Sequence[tuple[str, str | Sequence[str]]], **variables: object) -> str:
        parts = [(role, [content] if isinstance(content, str) else content) for role, content in messages]
        environment.begin(sum([len(text) for _, texts in parts for text in texts]))
        try:
            return program.render(messages=_messages(parts, template), **template.variables | variables)
        except failures as error:
            raise ChatTemplateError(f"its chat template can't be rendered ({error})") from error

    return render


def _messages(parts: Sequence[tuple[str, Sequence[str]]], template: ChatTemplate) -> list[dict[str, object]]:
    """Return the messages in the form that the template reads: with parts, or with one text of them all."""
    if template.structured:
        return [{"role": role, "content": [{"type": "text", "text": text} for text in texts]} for role, texts in parts]
    return [{"role": role, "content": "\n".join(texts)} for role, texts in parts]


def _environment(*, dated: bool) -> LimitedEnvironment:
    """Return the sandbox with what transformers adds to it."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    from nearfar.models.files.template_limits import LimitedEnvironment

    class Generation(Extension):
        """The tag around an assistant's words, which changes nothing here."""

        tags = {"generation"}  # noqa: RUF012 — jinja2's own attribute

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def fail(message: str) -> str:
        raise TemplateError(message)

    environment = LimitedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = environment.counted(
        lambda value, **options: json.dumps(value, **{"ensure_ascii": False} | options)
    )
    environment.globals["raise_exception"] = fail
    environment.globals["strftime_now"] = (
        (lambda layout: datetime.now().astimezone().strftime(layout)) if dated else lambda _: fail("it has the date")
    )
    return environment
