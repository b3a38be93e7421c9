"""Renders a checkpoint's chat template with placeholders for the query, the document and an instruction.

Templates are programs, which run in jinja2's sandbox as they do in transformers. A template that does anything to the
texts but insert them is refused, since its result couldn't be reused for other texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nearfar.core.errors import CheckpointError
from nearfar.models.files.config import PROMPTS_FILE, PromptsConfig, SentenceConfig, TokenizerConfig
from nearfar.models.files.json_files import read_optional_json
from nearfar.models.recipe.recipe import DOCUMENT, INSTRUCTION, QUERY, PairPrompt

# Stands for a text while a template is rendered; its spaces and capitals reveal trimming and the like.
_MARK = " Xq{}zX "
_PLACEHOLDERS = {_MARK.format("query"): QUERY, _MARK.format("document"): DOCUMENT, _MARK.format("system"): INSTRUCTION}


class NoPairTemplate(Exception):
    """The folder has no template that inserts a query and a document; the message is the reason."""


class _TokenizerConfig(TokenizerConfig):
    """tokenizer_config.json; it may have several templates by name."""

    chat_template: str | list[dict[str, str]] | None = None


def render_pair(folder: Path) -> PairPrompt:
    """Render the folder's template with placeholders; it takes an instruction if that appears once.

    Raises NoPairTemplate if there is no template for pairs, CheckpointError for unsupported options.
    """
    tokenizer = read_optional_json(folder / "tokenizer_config.json", _TokenizerConfig)
    source = _find_source(folder, tokenizer)
    tokens = {"bos_token": tokenizer.special_token("bos"), "eos_token": tokenizer.special_token("eos")}
    options = _read_options(folder) | tokens
    prompts = read_optional_json(folder / PROMPTS_FILE, PromptsConfig)
    default = (prompts.prompts or {}).get(prompts.default_prompt_name or "")  # the default instruction for pairs
    pair = [{"role": role, "content": _MARK.format(role)} for role in ("query", "document")]

    def render(*system: str) -> str:
        messages = [{"role": "system", "content": content} for content in system]
        return _replace_marks(_render(source, [*messages, *pair], options))

    plain = render(default) if default else render()
    try:
        instructed = render(_MARK.format("system"))
    except NoPairTemplate:
        instructed = ""
    takes_instruction = instructed.count(INSTRUCTION) == 1
    return PairPrompt(segments=(plain,), segments_with_instruction=(instructed,) if takes_instruction else None)


def has_pair_template(folder: Path) -> bool:
    """Return whether the folder's template names a query and a document, as a reranker's does."""
    try:
        source = _find_source(folder, read_optional_json(folder / "tokenizer_config.json", _TokenizerConfig))
    except NoPairTemplate:
        return False
    return all(re.search(rf"[\"']{role}[\"']", source) for role in ("query", "document"))


def has_chat_template(folder: Path) -> bool:
    """Return whether the folder's tokenizer has a chat template."""
    try:
        return bool(_find_source(folder, read_optional_json(folder / "tokenizer_config.json", _TokenizerConfig)))
    except NoPairTemplate:
        return False


def _replace_marks(rendered: str) -> str:
    """Replace the marks by the placeholders. Raises NoPairTemplate unless query and document appear once, in order."""
    query, document, _ = _PLACEHOLDERS
    if any(rendered.count(mark) != 1 for mark in (query, document)):
        raise NoPairTemplate("its chat template doesn't insert the query and the document unchanged, once each")
    if rendered.index(query) > rendered.index(document):
        raise NoPairTemplate("its chat template puts the document before the query")
    if any(placeholder in rendered for placeholder in _PLACEHOLDERS.values()):
        raise NoPairTemplate(f"its chat template itself contains {' or '.join(_PLACEHOLDERS.values())}")
    for mark, placeholder in _PLACEHOLDERS.items():
        rendered = rendered.replace(mark, placeholder)
    return rendered


def _find_source(folder: Path, tokenizer: _TokenizerConfig) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    source = tokenizer.chat_template
    if isinstance(source, list):
        source = next((named.get("template") for named in source if named.get("name") == "default"), None)
    if not source:
        raise NoPairTemplate("it has no chat template")
    return source


def _read_options(folder: Path) -> dict[str, bool]:
    """Read the options that sentence-transformers passes to the template. Raises CheckpointError for other options."""
    file = folder / "sentence_bert_config.json"
    config = read_optional_json(file, SentenceConfig)
    message_format = config.modality_config.get("message", {}).get("format", "flat")
    if message_format != "flat":
        raise CheckpointError(f"{file}: the message format {message_format} isn't supported")
    options: dict[str, Any] = config.processing_kwargs.get("chat_template", {})
    unknown = [name for name, value in options.items() if not isinstance(value, bool) or name == "restore_suffix"]
    if unknown:
        raise CheckpointError(f"{file}: processing_kwargs {unknown[0]} isn't supported")
    return options


def _render(source: str, messages: list[dict[str, str]], options: Mapping[str, object]) -> str:
    """Render as transformers' apply_chat_template does. Raises NoPairTemplate for a template that fails."""
    try:
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise CheckpointError("a chat template needs jinja2; pip install jinja2") from error
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    try:
        return environment.from_string(source).render(messages=messages, **options)
    except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise NoPairTemplate(f"its chat template can't be rendered with a pair ({error})") from error
