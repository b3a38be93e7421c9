"""The store on a thread of its own, opened when it is first used, with errors that a client may see."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from nearfar.batches.store import DATABASE, Store
from nearfar.core.errors import StorageFull, StorageUnavailable

_P = ParamSpec("_P")
_T = TypeVar("_T")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Storage:
    """Runs calls of the store one at a time. Without a folder, all are refused."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, "nearfar-store")
        self._store: Store | None = None
        self._is_closed = False

    @property
    def exists(self) -> bool:
        """Return whether anything was stored before."""
        return self._folder is not None and (self._folder / DATABASE).is_file()

    async def run(self, call: Callable[[Store], _T]) -> _T:
        """Run ``call`` with the store. Raises StorageUnavailable, and StorageFull where the disk is."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, call)

    async def in_thread(self, call: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run a call that reads or writes a file, besides those of the store. Raises as ``run``."""
        with self._errors():
            return await asyncio.to_thread(call, *args, **kwargs)

    def _run(self, call: Callable[[Store], _T]) -> _T:
        if self._store is None:
            if self._folder is None:
                raise StorageUnavailable("there is no home folder for files and batches; set state_dir")
            self._store = Store(self._folder)
        with self._errors():
            return call(self._store)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            if getattr(error, "errno", None) in _FULL or "disk is full" in str(error):
                raise StorageFull(f"the disk of the state folder {self._folder} is full") from error
            raise StorageUnavailable(f"the state folder {self._folder} can't be used ({error})") from error

    async def close(self) -> None:
        """Close the store, once the calls that run have ended. It may be called again."""
        if not self._is_closed:
            self._is_closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            self._thread.shutdown(wait=False)

    def _close(self) -> None:
        if self._store:
            self._store.close()
