"""An engine plugin that runs no model, written with public names alone.

Its vectors depend on the ids only, so that a test knows which row produced which vector; some ids make it fail, so that
one server can show every kind of failure.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
import zlib
from typing import TYPE_CHECKING

import numpy as np

from nearfar.engines import EngineInfo, Representation, RowsTooLarge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nearfar.engines import Device, Engine, FloatArray, OpenRequest, Row

# Ids of all-MiniLM-L6-v2's vocabulary for the words in the names.
BOOM, NAN, ZERO, FEW, QUIT, HANG, FREEZE, GIANT = 8797, 16660, 5717, 2261, 8046, 6865, 13184, 5016
# In a server's process, no batch runs while the file of this name exists.
_HOLD = os.environ.get("FAKE_ENGINE_HOLD", "")
SECRET = "a path, a prompt and other things that no client may see"  # the failing engine's message


def vector_of(ids: Sequence[int], dim: int) -> FloatArray:
    """Return the (dim,) unit vector that the fake computes for these ids."""
    seed = zlib.crc32(np.array(ids, dtype=np.int64).tobytes())
    vector = np.random.default_rng(seed).standard_normal(dim).astype(np.float32)
    unit: FloatArray = vector / np.linalg.norm(vector)
    return unit


class FakeEngine:
    """Computes vectors from the ids, records every batch, and waits for ``gate`` before each.

    ``close`` waits for ``way_out``. While ``broken``, every call fails. With ``tokens_per_s`` it is that slow.
    """

    tokens_per_s = 0.0

    def __init__(self, dim: int = 8) -> None:
        self.info = EngineInfo(
            name="fake",
            device="cpu",
            dtype="float32",
            dim=dim,
            batching="mixed lengths",
            batch_tokens=1024,
            max_padding=1024,
        )
        self.batches: list[list[Row]] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.way_out = threading.Event()
        self.way_out.set()
        self.closed = False
        self.broken = False

    def embed(self, batch: Sequence[Row]) -> FloatArray:
        self._note(batch)
        words = _misbehave(batch)
        vectors = np.stack([vector_of(row.ids, self.info.dim) for row in batch])
        for at, row in enumerate(batch):
            if NAN in row.ids:
                vectors[at] = np.nan
            if ZERO in row.ids:
                vectors[at] = 0
        if giants := [at for at, row in enumerate(batch) if GIANT in row.ids]:
            raise RowsTooLarge(vectors, giants)
        return vectors[:-1] if FEW in words else vectors

    def score(self, batch: Sequence[Row]) -> FloatArray:
        self._note(batch)
        return np.array([float(len(row.ids)) for row in batch], dtype=np.float32)

    def represent(self, batch: Sequence[Row]) -> list[Representation]:
        try:
            return [Representation(dense=vector) for vector in self.embed(batch)]
        except RowsTooLarge as some:
            represented = [Representation(dense=vector_of(row.ids, self.info.dim)) for row in batch]
            raise RowsTooLarge(represented, some.indices) from some

    def hidden_states(self, batch: Sequence[Row]) -> list[FloatArray]:
        """Compute each token's state from its id alone."""
        self._note(batch)
        words = _misbehave(batch)
        states = [np.stack([vector_of([word], self.info.dim) for word in row.ids]) for row in batch]
        for row, own in zip(batch, states, strict=True):
            own[:] = np.nan if NAN in row.ids else own
        if giants := [at for at, row in enumerate(batch) if GIANT in row.ids]:
            raise RowsTooLarge(states, giants)
        return states[:-1] if FEW in words else states

    def memory(self) -> dict[str, int]:
        """Return bytes in use by kind, as engines do that can measure it."""
        return {"active": 8 * self.info.dim}

    def close(self) -> None:
        self.threads.add(threading.current_thread().name)
        assert self.way_out.wait(60)
        assert not self.closed, "closed twice"
        self.closed = True

    def _note(self, batch: Sequence[Row]) -> None:
        self.batches.append(list(batch))
        self.threads.add(threading.current_thread().name)
        assert self.gate.wait(60)
        while _HOLD and os.path.exists(_HOLD):  # noqa: PTH110 — called for each batch
            time.sleep(0.01)
        if self.tokens_per_s:
            time.sleep(sum(len(row.ids) for row in batch) / self.tokens_per_s)
        if self.broken:
            raise RuntimeError(SECRET)


def _misbehave(batch: Sequence[Row]) -> set[int]:
    """Fail in the way that a word of the batch requests; return all words."""
    words = {word for row in batch for word in row.ids}
    if BOOM in words:
        raise RuntimeError(SECRET)
    if QUIT in words:
        raise SystemExit(SECRET)
    if HANG in words:
        threading.Event().wait()
    if FREEZE in words:
        ctypes.PyDLL(None).sleep(600)  # without releasing the interpreter lock
    return words


class FakeKind:
    """Opens the fake; never the automatic choice."""

    priority = -1

    def unavailable_reason(self, device: Device) -> str | None:
        return None if device in {"auto", "cpu"} else f"the fake has no {device}; use cpu"

    def open(self, request: OpenRequest) -> Engine:
        return FakeEngine(request.recipe.dim)


class GatedKind(FakeKind):
    """Opens an engine when ``gate`` is open, raises ``failures`` one by one first, and records every request.

    ``there`` has all engines opened so far, by several of these where they share one list.
    """

    def __init__(self, there: list[FakeEngine] | None = None) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.failures: list[Exception] = []
        self.requests: list[OpenRequest] = []
        self.engines: list[FakeEngine] = []
        self.there = [] if there is None else there
        self.most_there = 0

    def open(self, request: OpenRequest) -> Engine:
        self.requests.append(request)
        assert self.gate.wait(60)
        if self.failures:
            raise self.failures.pop(0)
        engine = FakeEngine(request.recipe.dim)
        self.engines.append(engine)
        self.there.append(engine)
        self.most_there = max(self.most_there, sum(not other.closed for other in self.there))
        return engine


kind = FakeKind()
