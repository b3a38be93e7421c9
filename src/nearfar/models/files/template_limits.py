"""A sandbox for chat templates, which are programs: each rendering has limits on its steps, memory and time.

Loops, calls, filters and operators count what they make; what could make much at once is estimated before.
"""

from __future__ import annotations

import functools
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextvars import ContextVar
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.filters import do_format
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

# Guesses: templates of known models have up to 20,000 characters, and take under 1,000 steps for a message.
_MAX_SOURCE = 1_000_000
_MAX_STEPS, _STEPS_A_CHARACTER = 500_000, 100
_TIMEOUT_S = 2.0
_MAX_NUMBER, _MAX_WIDTH, _MAX_BITS = 100_000, 1000, 10_000
# A width or precision of six digits, or one that is an argument.
_WIDE = re.compile(r"%[^a-zA-Z%]*(\d{6}|\*)|\{[^}]*(\d{6}|\{)")
_CONTAINERS = (list, tuple, set, dict, Namespace)
_TOO_WIDE = "it formats with too large a width"


class _Budget:
    """What is left of a rendering's steps, and when it has to end."""

    def __init__(self, steps: int, until: float = math.inf) -> None:
        self.left = steps
        self.until = until


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, with limits. ``begin`` starts a rendering; TemplateError is raised at a limit."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self, **options: Any) -> None:
        # What is computed in advance would not be counted.
        super().__init__(**options, optimized=False, finalize=self._write)
        self._iteration = 1
        # Several threads may render.
        self._budgets: ContextVar[_Budget] = ContextVar("budget")
        self.begin(0)
        self.globals = {name: value for name, value in self.globals.items() if name != "lipsum"}
        self.filters = {name: self.counted(function) for name, function in self.filters.items()}
        self.filters["_each"] = self._each
        self.filters["_joined"] = self._count
        self.filters["_read"] = self._read
        self.filters["_sliced"] = self._count

    def begin(self, characters: int) -> None:
        """Start to render texts with so many characters."""
        self._budgets.set(_Budget(_MAX_STEPS + characters * _STEPS_A_CHARACTER, time.monotonic() + _TIMEOUT_S))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > _MAX_SOURCE:
            raise TemplateError(f"it has over {_MAX_SOURCE:,} characters")
        self._iteration = 1 + len(source) // 64  # what an iteration writes isn't counted itself
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = _filtered(loop.iter, "_each")
        for joined in [*tree.find_all(nodes.Concat)]:
            parts = [_filtered(node, "_read") for node in joined.nodes]
            joined.nodes = [_filtered(nodes.Concat(parts, lineno=joined.lineno), "_joined")]
        for item in tree.find_all(nodes.Getitem):
            if isinstance(item.arg, nodes.Slice):
                item.node = _filtered(item.node, "_sliced")
        for compared in tree.find_all(nodes.Compare):
            compared.expr = _filtered(compared.expr, "_read")
            for operand in compared.ops:
                operand.expr = _filtered(operand.expr, "_read")
        for test in tree.find_all(nodes.Test):
            test.node = _filtered(test.node, "_read")
            test.args = [_filtered(node, "_read") for node in test.args]
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute an operator's result, unless it is too large."""
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
            if bits > _MAX_BITS:
                raise TemplateError("it computes too large a number")
        elif operator == "*":
            self._estimate(left, right)
        self._read(left)
        self._read(right)
        if operator == "%" and _is_wide(left):
            raise TemplateError(_TOO_WIDE)
        return self._count(super().call_binop(context, operator, left, right))

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function or a method, unless its result may be too large."""
        method = getattr(obj, "__wrapped__", obj)  # the sandbox wraps str.format
        value = getattr(method, "__self__", None)
        if getattr(method, "__name__", "").startswith("format") and _is_wide(value):
            raise TemplateError(_TOO_WIDE)
        self._estimate(value, *args, *kwargs.values())
        return self._count(super().call(context, obj, *args, **kwargs))

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter with limits."""

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            if function is do_format and _is_wide(args[0]):
                raise TemplateError(_TOO_WIDE)
            first = 1 if hasattr(function, "jinja_pass_arg") else 0  # a context comes before the value
            self._estimate(*args[first:], *kwargs.values(), most=_MAX_WIDTH)
            return self._count(function(*args, **kwargs))

        return run

    def _estimate(self, value: Any = None, *args: Any, most: int = _MAX_NUMBER) -> None:
        """Raise TemplateError if a result could be too large: as long as the value for each part of an argument."""
        for each in (value, *args):
            self._read(each)
        sizes = [abs(each) if isinstance(each, int) else _size(each) for each in (value, *args)]
        if any(isinstance(each, int) and abs(each) > most for each in args):
            raise TemplateError(f"it uses a number over {most:,}")
        if sizes[0] * max(sizes[1:], default=0) > self._budgets.get().left:
            raise TemplateError("it makes too long a text")

    def _read(self, value: Any) -> Any:
        """Return the value. Raises TemplateError if it has too many parts to be written or compared."""
        if isinstance(value, _CONTAINERS) and _count_parts(value, {}) > self._budgets.get().left:
            raise TemplateError("it makes too large a list")
        return value

    def _write(self, value: Any) -> Any:
        """Count what is written, and return it."""
        self._spend(1 + (_count_parts(value, {}) if isinstance(value, _CONTAINERS) else _size(value)))
        return value

    def _each(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self._spend(self._iteration)
            yield value

    def _count(self, result: Any) -> Any:
        self._spend(1 + _size(result))
        return result

    def _spend(self, steps: int) -> None:
        budget = self._budgets.get()
        budget.left -= steps
        if budget.left < 0:
            raise TemplateError("it takes too many steps, or too much memory")
        if time.monotonic() > budget.until:
            raise TemplateError(f"it takes over {_TIMEOUT_S:g} s")


def _is_wide(value: Any) -> bool:
    return isinstance(value, str) and bool(_WIDE.search(value))


def _size(value: Any) -> int:
    return len(value) if isinstance(value, Sized) else 0


def _count_parts(value: Any, known: dict[int, int]) -> int:
    """Count the characters and items of a value, those that it has several times as often."""
    if not isinstance(value, _CONTAINERS):
        return 1 + _size(value)
    if id(value) not in known:
        known[id(value)] = 0  # it may contain itself
        parts = object.__getattribute__(value, "_Namespace__attrs") if isinstance(value, Namespace) else value
        parts = [*parts, *parts.values()] if isinstance(parts, dict) else parts
        known[id(value)] = 1 + sum([_count_parts(part, known) for part in parts])
    return known[id(value)]


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
