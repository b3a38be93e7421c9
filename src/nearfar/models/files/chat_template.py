"""A folder's chat template → the text in which a query and a document stand. Renders it once, with marks for the two.

Templates are programs of a small language, which run in jinja2's sandbox as transformers runs them. Whatever one does
with a pair but put it somewhere is refused: its place would no longer be known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from nearfar.core.errors import CheckpointError
from nearfar.models.files.config import SentenceConfig
from nearfar.models.files.json_files import read_optional_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Stand for a text while a template is rendered: with spaces and capitals, so that trimming and the like show.
_MARK = " Xq{}zX "


class NoPairTemplate(Exception):
    """The folder has no template that puts a query and a document somewhere; the text says why."""


class RenderedTemplate(Struct, frozen=True):
    """A rendered template: ``plain``, and ``told`` with a place for an instruction, None where it has none."""

    plain: str
    told: str | None


class _Templates(Struct):
    """tokenizer_config.json. Several templates may stand there by name."""

    chat_template: str | list[dict[str, str]] | None = None
    bos_token: str | dict[str, Any] | None = None
    eos_token: str | dict[str, Any] | None = None


class _Prompts(Struct):
    """config_sentence_transformers.json: a default prompt is a pair's instruction."""

    prompts: dict[str, str] = {}
    default_prompt_name: str | None = None


def render_pair(folder: Path, query: str, document: str, instruction: str) -> RenderedTemplate:
    """Render the template with a pair and put the three given places where its parts stand.

    Raises NoPairTemplate where there is none that has both, CheckpointError for options that aren't known.
    """
    tokens = read_optional_json(folder / "tokenizer_config.json", _Templates)
    source = _source(folder, tokens)
    options = _options(folder) | {"bos_token": _text(tokens.bos_token), "eos_token": _text(tokens.eos_token)}
    named = read_optional_json(folder / "config_sentence_transformers.json", _Prompts)
    default = named.prompts.get(named.default_prompt_name or "")
    pair = [{"role": role, "content": _MARK.format(role)} for role in ("query", "document")]
    places = {_MARK.format("query"): query, _MARK.format("document"): document, _MARK.format("system"): instruction}
    system = [{"role": "system", "content": default}] if default else []
    plain = _put(_render(source, [*system, *pair], options), places)
    try:
        system = [{"role": "system", "content": _MARK.format("system")}]
        told = _put(_render(source, [*system, *pair], options), places)
    except NoPairTemplate:
        return RenderedTemplate(plain, None)
    return RenderedTemplate(plain, told if told.count(instruction) == 1 else None)


def _put(rendered: str, places: Mapping[str, str]) -> str:
    """Replace the marks by the placeholders. Raises NoPairTemplate unless query and document appear once, in order."""
    query, document, _ = places
    if any(rendered.count(mark) != 1 for mark in (query, document)):
        raise NoPairTemplate("its chat template doesn't put a query and a document as they are, once each")
    if rendered.index(query) > rendered.index(document):
        raise NoPairTemplate("its chat template puts the document before the query")
    if any(place in rendered for place in places.values()):
        raise NoPairTemplate(f"its chat template itself holds {' or '.join(places.values())}")
    for mark, place in places.items():
        rendered = rendered.replace(mark, place)
    return rendered


def _source(folder: Path, tokens: _Templates) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    named = tokens.chat_template
    if isinstance(named, list):
        named = next((one.get("template") for one in named if one.get("name") == "default"), None)
    if not named:
        raise NoPairTemplate("it has no chat template")
    return named


def _text(token: str | dict[str, Any] | None) -> str:
    return token if isinstance(token, str) else str((token or {}).get("content", ""))


def _options(folder: Path) -> dict[str, bool]:
    """Read what sentence-transformers tells the template. Raises CheckpointError for what it tells others."""
    file = folder / "sentence_bert_config.json"
    sentence = read_optional_json(file, SentenceConfig)
    how = sentence.modality_config.get("message", {}).get("format", "flat")
    if how != "flat":
        raise CheckpointError(f"{file}: messages in the format {how} aren't supported")
    unknown = [name for name in sentence.processing_kwargs if name != "chat_template"]
    options: dict[str, Any] = sentence.processing_kwargs.get("chat_template", {})
    unknown += [name for name, value in options.items() if not isinstance(value, bool) or name == "restore_suffix"]
    if unknown:
        raise CheckpointError(f"{file}: processing_kwargs {unknown[0]} isn't supported")
    return options


def _render(source: str, messages: list[dict[str, str]], options: Mapping[str, object]) -> str:
    """Render as transformers' apply_chat_template does. Raises NoPairTemplate for a template that can't be."""
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
