"""What a model wants before its texts, where that is said, and which of it a caller means.

By its name, by what the text is for, or by an instruction of the caller's own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, get_args

from nearfar.core.errors import InputError
from nearfar.core.types import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nearfar.models.recipe.recipe import Recipe

# The names under which checkpoints keep the prompt of each role. stella's are s2p_query and s2s_query, E5-Mistral's
# web_search_query and sts_query, EmbeddingGemma's and Nomic's those of MTEB's kinds of tasks.
_ROLES: dict[Role, tuple[str, ...]] = {
    "query": ("query", "s2p_query", "web_search_query", "Retrieval-query", "search_query", "retrieval.query"),
    "document": ("document", "passage", "corpus", "Retrieval-document", "search_document", "retrieval.passage"),
    "classification": ("classification", "Classification"),
    "clustering": ("clustering", "Clustering", "separation"),
    "similarity": ("similarity", "STS", "s2s_query", "sts_query", "text-matching"),
}
_SEARCHING: tuple[Role, ...] = ("query", "document")
# A prompt with a description of the task in it, which may be another one: Qwen3-Embedding, E5, GTE, stella; Gemma.
_INSTRUCTED = re.compile(r"(Instruct: )(.+)(\nQuery: ?)|(task: )(.+)( \| query: )", re.DOTALL)


def find_prompt(prompts: Mapping[str, str], wanted: str) -> str | None:
    """Give the prompt called ``wanted``, or that of the role of this name; None where it is neither.

    Where a model has no prompt for queries or for documents, theirs is the empty one: the default prompt is for texts
    whose role isn't known. sentence-transformers 6.2 does the same, but knows no other names.
    """
    if wanted in prompts:
        return prompts[wanted]
    role = next((role for role in _ROLES if role == wanted), None)
    if role is None:
        return None
    found = next((prompts[name] for name in _ROLES[role] if name in prompts), None)
    return "" if found is None and role in _SEARCHING else found


def prompt_names(prompts: Mapping[str, str]) -> list[str]:
    """List what may be wanted of a model."""
    return list(dict.fromkeys([*_SEARCHING, *prompts]))


def choose_prompt(recipe: Recipe, named: str | None, role: Role | None, instruction: str | None = None) -> str:
    """Give what is put before a text: the prompt called ``named``, else that of the role, else the model's default.

    With an ``instruction``, that in the place of the model's own. Raises InputError for a name that is none of the
    model's, and for an instruction to a model, or for a kind of text, that takes none.
    """
    if instruction is not None:
        return _instruct(recipe, named or role or "query", instruction)
    if not named and role and find_prompt(recipe.prompts, role) is None:
        role = None  # a task that the model wasn't trained to be told
    wanted = named or role or recipe.default_prompt
    if not wanted:
        return ""
    prompt = find_prompt(recipe.prompts, wanted)
    if prompt is None:
        there = ", ".join(prompt_names(recipe.prompts))
        raise InputError(f"the model has no prompt {wanted[:50]!r}; there are: {there}")
    return prompt


def _instruct(recipe: Recipe, wanted: str, instruction: str) -> str:
    """Put the instruction where the prompt for queries has its own, as every such model's page does for all tasks."""
    template = _INSTRUCTED.fullmatch(find_prompt(recipe.prompts, "query") or "")
    if template is None:
        raise InputError("this model takes no instruction; leave it out", "instruction")
    if wanted not in get_args(Role) or wanted == "document":
        raise InputError(
            f"this model takes an instruction before queries, not before {wanted[:50]!r}; leave it out", "instruction"
        )
    if not instruction.strip():
        raise InputError("instruction must not be empty or be only whitespace; leave it out", "instruction")
    before, _, after = (part for part in template.groups() if part is not None)
    return f"{before}{instruction}{after}"
