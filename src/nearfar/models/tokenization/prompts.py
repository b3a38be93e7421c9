"""Chooses the prompt for a text: by its name, by the text's role, or with a request's instruction."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import get_args

from nearfar.core.errors import InputError
from nearfar.core.types import Role
from nearfar.models.recipe.recipe import Recipe

# The names that checkpoints use for the prompts of a role, Stella's and E5-Mistral's among them.
_ROLES: dict[str, tuple[str, ...]] = {
    "classification": ("classification", "Classification"),
    "clustering": ("clustering", "Clustering", "separation"),
    "similarity": ("similarity", "STS", "s2s_query", "sts_query", "text-matching"),
}
_SEARCH_ROLES: tuple[Role, ...] = ("query", "document")
# Prompts with a replaceable task description: those of Qwen3-Embedding, E5, GTE and Stella, and EmbeddingGemma's.
_INSTRUCTED = re.compile(r"(Instruct: )(.+)(\nQuery: ?)|(task: )(.+)( \| query: )", re.DOTALL)


def choose_prompt(recipe: Recipe, name: str | None, role: Role | None, instruction: str | None = None) -> str:
    """Return the prompt called ``name``, else the role's, else the model's default; "" if it has none.

    ``instruction`` replaces the task description in it. Raises InputError for an unknown name, and for an instruction
    that the model, or a text of this role, doesn't support.
    """
    if instruction is not None:
        return _with_instruction(recipe, name or role or "query", instruction)
    if not name and role and find_prompt(recipe.prompts, role) is None:
        role = None  # the model wasn't trained for this task
    wanted = name or role or recipe.default_prompt
    if not wanted:
        return ""
    prompt = find_prompt(recipe.prompts, wanted)
    if prompt is None:
        names = ", ".join(prompt_names(recipe.prompts))
        raise InputError(f"the model has no prompt {wanted[:50]!r}; there are: {names}")
    return prompt


def find_prompt(prompts: Mapping[str, str], wanted: str) -> str | None:
    """Return the prompt called ``wanted``, or that of the role of this name; None if there is neither.

    A model without a prompt for queries or documents has an empty one for them, as in sentence-transformers 5 and 6:
    its default prompt is for texts without a role, and one called "passage" is for those that ask for it.
    """
    if wanted in prompts:
        return prompts[wanted]
    found = next((prompts[name] for name in _ROLES.get(wanted, ()) if name in prompts), None)
    return "" if found is None and wanted in _SEARCH_ROLES else found


def prompt_names(prompts: Mapping[str, str]) -> list[str]:
    """Return the names that ``find_prompt`` knows for these prompts."""
    return list(dict.fromkeys([*_SEARCH_ROLES, *prompts]))


def _with_instruction(recipe: Recipe, wanted: str, instruction: str) -> str:
    """Return the query prompt with this instruction; the models' pages use it for all tasks."""
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
