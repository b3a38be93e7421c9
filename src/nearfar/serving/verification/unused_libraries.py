"""Keeps libraries that sentence-transformers imports for training and evaluation from being loaded.

They take half of the CPU time of its import, and no number of a loaded model comes from them. To be used only in
a process of its own.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_UNUSED = {"datasets", "pandas", "scipy", "sklearn"}


def replace_unused_libraries() -> None:
    """Import empty modules in their place from now on: each of their names is an empty class."""
    sys.meta_path.insert(0, _EmptyModules())


class _EmptyModules(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        """Find any module of these libraries."""
        return ModuleSpec(fullname, self, is_package=True) if fullname.partition(".")[0] in _UNUSED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Create a module without names of its own."""
        return _EmptyModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: there is no code to run."""


class _EmptyModule(ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})
