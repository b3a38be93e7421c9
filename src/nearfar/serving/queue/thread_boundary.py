"""Thread boundary: what a worker thread may return to the event loop is a result or an Exception asyncio can carry."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from nearfar.core.errors import InternalError

_T = TypeVar("_T")


def contained(call: Callable[[], _T]) -> _T:
    """Call, and raise InternalError in place of what would end the event loop or hang the awaiting task.

    A panic of Rust code and SystemExit aren't Exceptions and would end the loop. StopIteration can't be set on a
    future, so the task that awaits it would wait forever.
    """
    try:
        return call()
    except StopIteration as error:
        raise InternalError("a call ended with StopIteration") from error
    except Exception:
        raise
    except BaseException as error:
        raise InternalError(f"a call ended with {type(error).__name__}") from error
