"""Model names: which model a request asks for. Names and tasks only; whether the model is loaded doesn't matter."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from nearfar.core.errors import InputError, ModelNotFound, ModelNotReady, ModelRequired, SettingsError, WrongTask
from nearfar.core.settings import BUILTIN_MODEL, ModelSettings
from nearfar.core.types import Task
from nearfar.models.tokenization.prompts import find_prompt
from nearfar.serving.registry.slot import Slot

# What clients of servers with one model send as its name; "" where they send none.
_PLACEHOLDERS = {"", "text-embeddings-inference", "default/not-specified"}
_CACHED_NAMES = 256  # names are matched in any case and with prompts, so there is no end to them
_MADE_FOR: Mapping[Task, str] = {"rank": "score", "classify": "score"}  # "embed" for other tasks
_UNAVAILABLE_RETRY_AFTER_S = 60  # an operator has to act first; clients don't wait any longer


class VendorNames(NamedTuple):
    """The vendors' names of models."""

    # Names that mean the default model of a task.
    defaults: Mapping[str, Task]
    # Names of models with public weights, each with the last parts of that model's other names on the hub. Such a name
    # means that model only.
    open_models: Mapping[str, Sequence[str]]


class UnavailableModel(NamedTuple):
    """A model of the settings that can't be served: its names, and how many models precede it."""

    names: tuple[str, ...]
    position: int


class ModelNames:
    """Resolves names to the models of ``slots``, a list that its owner fills."""

    def __init__(self, slots: Sequence[Slot], vendors: VendorNames) -> None:
        self._slots = slots
        self._vendors = vendors
        self._unavailable: list[UnavailableModel] = []
        # Cached, as every request resolves one of a few names; once it is called, no model may be added any more.
        self.resolve = lru_cache(_CACHED_NAMES)(self._resolve_any)

    def mark_unavailable(self, settings: ModelSettings) -> None:
        """Record that the next of the models can't be served: no other model may answer in its place."""
        names = (settings.name, settings.name.rstrip("/").rpartition("/")[2], *settings.aliases)
        self._unavailable.append(UnavailableModel(names, len(self._slots)))

    def refuse_duplicates(self, *names: str) -> None:
        """Raise SettingsError where a model has one of these names already."""
        for name in names:
            if self._find_exact(name):
                raise SettingsError(f"models: two of them are called {name!r}; rename a folder or an alias")

    def _resolve_any(self, name: str | None, tasks: tuple[Task, ...]) -> tuple[Slot, str | None]:
        """Return the model that a request asks for, and the prompt where the name is ``MODEL:PROMPT``.

        It is that of the first task for which there is one. Raises ModelNotFound or WrongTask, and ModelNotReady for a
        model that is unavailable.
        """
        for task in tasks[:-1]:
            with contextlib.suppress(WrongTask):
                return self._resolve(name, task)
        return self._resolve(name, tasks[-1])

    def _resolve(self, name: str | None, task: Task) -> tuple[Slot, str | None]:
        try:
            return self.find(name, task), None
        except ModelNotFound:
            model, _, prompt = (name or "").rpartition(":")
            if not model:
                raise
            slot = self.find(model, task)
            if find_prompt(slot.discovered.recipe.prompts, prompt) is None:
                raise
            return slot, prompt

    def find(self, name: str | None, task: Task) -> Slot:
        """Return a model by name, by alias, or as the default of the task. Raises as ``resolve`` does."""
        if name is not None:
            if slot := self.find_own(name):
                if task not in slot.info.tasks:
                    raise WrongTask(name, task)
                return slot
            self._refuse_unavailable(name)
            if name in _PLACEHOLDERS:
                return self._find_only(name, task)
            default_of = self._task_of_vendor_name(name)
            if default_of is None:
                raise ModelNotFound(name)
            if default_of != task:
                raise WrongTask(name, task)
        return self._find_default(name, task)

    def find_listed(self, name: str) -> Slot:
        """Return a model that a caller only asks about. Raises as ``resolve`` does."""
        if slot := self.find_own(name):
            return slot
        self._refuse_unavailable(name)
        if name in _PLACEHOLDERS and len(self._slots) == 1:
            return self._slots[0]
        if (task := self._task_of_vendor_name(name)) is None:
            raise ModelNotFound(name, listing=True)
        return self._find_default(name, task)

    def find_own(self, name: str) -> Slot | None:
        """Return a model by its name, an alias, the last part of either, or a vendor's name of this very model.

        Ollama's clients append ``:latest`` to a name without a tag, so that means the name alone, unless a model is
        called exactly that. Raises InputError for a name of several models, and ModelNotReady where one of them is
        unavailable.
        """
        bare = name.removesuffix(":latest")
        return self._find_exact(name) or self._find_exact(bare) or self._find_published(bare)

    def _find_exact(self, name: str) -> Slot | None:
        for slot in self._slots:
            if slot.is_called(name):
                return slot
        return None

    def _find_published(self, name: str) -> Slot | None:
        """Return the one model that is published under this name, with any owner and in any case."""
        found: dict[Slot, str] = {}
        for slot in self._slots:
            if full_name := self._full_name(name, (slot.name, *slot.info.aliases)):
                found[slot] = full_name
        if len(found) > 1:
            raise InputError(f"model {name[:200]!r} could be {' or '.join(found.values())}; use the full name", "model")
        if found and self._is_unavailable(name):
            raise _unavailable_error(name)
        return next(iter(found), None)

    def _full_name(self, requested: str, names: Iterable[str]) -> str | None:
        """Return the first of a model's names that was requested, by the whole name or by its last part."""
        lower = requested.lower()
        accepted = {lower, *map(str.lower, self._vendors.open_models.get(lower, ()))}
        for name in names:
            if name.lower() in accepted or name.lower().rpartition("/")[2] in accepted:
                return name
        return None

    def _task_of_vendor_name(self, name: str) -> Task | None:
        """Return the task of the default model that a vendor's name means.

        The name of an open model means a default only where nothing but the built-in model is served, so that the
        vendor's clients can be tried without a download.
        """
        bare = name.removesuffix(":latest")
        if bare in self._vendors.open_models:
            only = self._slots[0].name if len(self._slots) == 1 and not self._unavailable else None
            if only != BUILTIN_MODEL:
                return None
        return self._vendors.defaults.get(name) or self._vendors.defaults.get(bare)

    def _find_only(self, name: str, task: Task) -> Slot:
        """Return the only model for a task, which a placeholder stands for: no client may get one of several by chance.

        A reranker comes before embedding models, which can rank as well. Raises ModelRequired or ModelNotFound.
        """
        able = [slot for slot in self._slots if task in slot.info.tasks]
        made_for = [slot for slot in able if slot.discovered.recipe.task == _MADE_FOR.get(task, "embed")]
        if len(made_for or able) + len(self._unavailable) > 1:
            served = ", ".join(slot.name for slot in made_for or able)
            raise ModelNotFound(name) if name else ModelRequired(f"model is required, one of {served}", "model")
        return self._find_default(name, task)

    def _find_default(self, name: str | None, task: Task) -> Slot:
        """Return the first model made for the task, else the first that can do it."""
        made_for = _MADE_FOR.get(task, "embed")
        best: Slot | None = None
        for slot in self._slots:
            if task in slot.info.tasks:
                if slot.discovered.recipe.task == made_for:
                    best = slot
                    break
                best = best or slot
        if not best and not self._unavailable:
            raise WrongTask(name or "the served model", task)
        if not best or self._may_precede(best, is_best=best.discovered.recipe.task == made_for):
            raise _unavailable_error(name or task)
        return best

    def _may_precede(self, default: Slot, *, is_best: bool) -> bool:
        """Return whether an unavailable model may be the true default; another model's vectors are no answer."""
        return any(not is_best or other.position <= self._slots.index(default) for other in self._unavailable)

    def _refuse_unavailable(self, name: str) -> None:
        """Raise ModelNotReady for the name of an unavailable model, alone or followed by a tag or a prompt."""
        for part in (name, name.rpartition(":")[0]):
            if part and self._is_unavailable(part):
                raise _unavailable_error(part)

    def _is_unavailable(self, name: str) -> bool:
        return any(self._full_name(name, other.names) for other in self._unavailable)


def _unavailable_error(name: str) -> ModelNotReady:
    message = f"{name} is unavailable; the server's log says why"
    return ModelNotReady(message, retry_after_s=_UNAVAILABLE_RETRY_AFTER_S)
