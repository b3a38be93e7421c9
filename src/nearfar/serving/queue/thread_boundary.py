"""What may come back from another thread to the event loop: a result, or an Exception that asyncio can carry."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from nearfar.core.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


def contained(call: Callable[[], _T]) -> _T:
    """Call, and raise InternalError for what would end the loop or hang its caller.

    A panic of Rust code and a SystemExit are no Exceptions and would end whoever awaits; a StopIteration can't be
    set on a future at all, so whoever awaits would wait for ever.
    """
    try:
        return call()
    except StopIteration as error:
        raise InternalError("a call ended with StopIteration") from error
    except Exception:
        raise
    except BaseException as error:
        raise InternalError(f"a call broke off with {type(error).__name__}") from error
