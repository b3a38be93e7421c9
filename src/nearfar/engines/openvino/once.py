"""Something that is made when it is first wanted, once, though several threads may want it at the same time."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class Once(Generic[_T]):
    """Whoever comes first makes it, and the others wait. Where that failed, whoever comes next tries again."""

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._made: Future[_T] = Future()
        self._turn = deque([self._made])  # a deque's ends may be taken from and given to by several threads

    def get(self) -> _T:
        """Give it."""
        try:
            made = self._turn.pop()
        except IndexError:
            return self._made.result()
        try:
            made.set_result(self._make())
        except BaseException as error:
            self._made = Future()
            self._turn.append(self._made)
            made.set_exception(error)
            raise
        return made.result()
