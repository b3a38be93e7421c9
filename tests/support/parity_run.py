"""Runs one parity case on one engine, through the service, and compares its numbers with the reference's."""

from __future__ import annotations

import hashlib
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from checkpoints import write_cached
from conftest import ignore
from msgspec import Struct
from parity_cases import CASES
from parity_reference import SAMPLES, Numbers, Sample, reference

from nearfar import ModelSettings, Settings
from nearfar.core.caller import ANONYMOUS
from nearfar.core.errors import EmptyInput, SetupError
from nearfar.core.jobs import ClassifyJob, EmbedJob, RankJob, RepresentJob, ScoreJob
from nearfar.serving.registry.fleet import Fleet
from nearfar.serving.registry.names import VendorNames
from nearfar.serving.service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from parity_cases.parts import Kind

    from nearfar.core.settings import ModelTask

Result = Literal["equal", "refused", "wrong", "crash"]

COSINE = 0.99999
MARGIN = 1e-4  # of scores in [0, 1], of norms, and of a text alone against the same one in a batch
LOGITS = 1e-3
NO_REFERENCE = "served, and the reference has no numbers"


class NotWritten(Exception):
    """Raised if the installed libraries can't write a case."""


class Outcome(Struct, frozen=True):
    """What one case did on one engine. ``detail`` is the refusal's sentence, or what is wrong."""

    result: Result
    detail: str = ""
    has_reference: bool = True


class Prepared(Struct, frozen=True):
    """A case on disk, and what it is compared with; ``error`` where the library can't open it."""

    folder: Path
    numbers: Numbers
    error: str
    sample: Sample


def prepare(name: str, place: Path, size: str) -> Prepared:
    """Write a case and compute its reference, or take both from the cache."""
    case, sample = CASES[name], SAMPLES[size]

    def write(target: Path) -> None:
        folder = target / case.folder
        folder.mkdir()
        try:
            case.write(folder)
        except Exception as error:
            raise NotWritten(f"{type(error).__name__}: {error}"[:300]) from error
        try:
            found = reference(folder, case, sample)
        except Exception as error:  # noqa: BLE001 — whatever it raises, it has no numbers
            (target / "error.txt").write_text(f"{type(error).__name__}: {error}"[:500], encoding="utf-8")
            found = {}
        arrays = {
            f"{kind}/{at}": value
            for kind, values in found.items()
            for at, value in enumerate(values)
            if value is not None
        }
        np.savez(target / "numbers.npz", allow_pickle=False, **arrays)

    write_cached(place, ("parity", name, size, _sources()), write)
    error = place / "error.txt"
    return Prepared(
        place / case.folder, _read(place / "numbers.npz", sample), error.read_text() if error.exists() else "", sample
    )


def _sources() -> str:
    """Return a hash of all that decides what is written."""
    here = Path(__file__).parent
    cases = [file for file in sorted((here / "parity_cases").glob("*.py")) if file.stem != "known"]
    sources = [*cases, here / "parity_reference.py", here / "texts.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()


def _read(file: Path, sample: Sample) -> Numbers:
    found: Numbers = {}
    with np.load(file) as arrays:
        for key in arrays.files:
            kind, _, at = key.partition("/")
            size = len(sample.pairs if kind in {"logits", "scores", "pairs"} else sample.texts)
            found.setdefault(kind, [None] * size)[int(at)] = arrays[key]
    return found


async def run(name: str, engine: str, place: Path, size: str) -> Outcome:
    """Run a case on an engine, in a service of its own.

    ``few`` texts are compared without the check at load, which is slow, unless they differ: it then has to refuse.
    """
    prepared = prepare(name, place, size)
    outcome = await _compare(name, engine, prepared, verify=size == "all")
    if outcome.result in {"wrong", "crash"} and size != "all":
        outcome = await _compare(name, engine, prepared, verify=True)
    return outcome


async def _compare(name: str, engine: str, prepared: Prepared, *, verify: bool) -> Outcome:
    place, case = prepared.folder.parent, CASES[name]
    try:
        async with serving(prepared.folder, engine, place / "cache", case.task, verify=verify) as service:
            if prepared.error or not {*prepared.numbers} - {"tokens"}:  # where it computes no text
                return Outcome("wrong", f"{NO_REFERENCE}: {prepared.error}")
            wrong = await _COMPARE[case.kind](service, prepared.numbers, prepared.sample)
    except SetupError as refusal:
        return Outcome("refused", str(refusal).replace(f"{place}/", ""), not prepared.error)
    except Exception as error:  # noqa: BLE001 — anything else is a crash
        return Outcome("crash", f"{type(error).__name__}: {error}"[:300])
    return Outcome("wrong", "; ".join(wrong)[:500]) if wrong else Outcome("equal")


@asynccontextmanager
async def serving(
    folder: Path, engine: str, cache: Path, task: ModelTask | None = None, *, verify: bool = True
) -> AsyncIterator[Service]:
    """Open a folder in float32, and yield the service."""
    models = (ModelSettings(name=str(folder), task=task, verify=verify),)
    cache_dir = str(cache)
    settings = Settings(models=models, engine=engine, device="cpu", dtype="float32", threads=1, cache_dir=cache_dir)
    fleet = Fleet(settings, VendorNames({}, {}), ignore)
    service = Service(fleet, ignore, settings)
    fleet.start()
    try:
        await fleet.opened()
        yield service
    finally:
        service.close()
        await fleet.close()


class _Answers:
    """Answers to single texts: an array for each, or the error that it got."""

    def __init__(self) -> None:
        self.found: list[Any] = []

    async def add(self, answer: Awaitable[Any]) -> None:
        try:
            self.found.append(await answer)
        except EmptyInput as empty:
            self.found.append(empty)

    def kept(self, expected: Sequence[Any]) -> list[int]:
        """Return which have a vector, where the reference has one too."""
        return [
            at for at, answer in enumerate(self.found) if not isinstance(answer, Exception) and expected[at] is not None
        ]


def _far(alone: Any, batched: Any) -> float:
    """Return the largest change of an element, relative to the largest element."""
    if alone.shape != batched.shape:
        return float("inf")
    return float(np.abs(alone - batched).max() / max(float(np.abs(alone).max()), 1e-9)) if alone.size else 0.0


async def _embed(service: Service, numbers: Numbers, sample: Sample, **job: Any) -> list[str]:
    alone = _Answers()
    for text in sample.texts:
        await alone.add(service.embed(EmbedJob(model=None, inputs=(text,), **job), ANONYMOUS))
    expected = numbers["vectors"]
    kept = alone.kept(expected)
    vectors = {at: alone.found[at].vectors[0] for at in kept}
    batch = await service.embed(EmbedJob(model=None, inputs=tuple(sample.texts[at] for at in kept), **job), ANONYMOUS)
    return [
        *_compare_vectors(expected, vectors),
        *_compare_tokens(numbers, {at: alone.found[at].usage.tokens for at in kept}),
        *_worst(
            "changes in a batch", {at: _far(vectors[at], row) for at, row in zip(kept, batch.vectors, strict=True)}
        ),
        *(
            f"text {at}: no vector"
            for at, one in enumerate(alone.found)
            if isinstance(one, Exception) and _has(expected, at)
        ),
    ]


def _has(expected: Sequence[Any], at: int) -> bool:
    vector = expected[at]
    return vector is not None and bool(np.abs(vector).any())


def _worst(what: str, found: dict[int, float], margin: float = MARGIN) -> list[str]:
    """Return a line on the largest of the differences, if it is above the margin."""
    bad = {at: value for at, value in found.items() if not value <= margin}
    if not bad:
        return []
    at = max(bad, key=lambda one: bad[one])
    return [f"{what}: {len(bad)} of {len(found)}, worst {bad[at]:.2g} at {at}"]


def _compare_vectors(expected: Sequence[Any], vectors: dict[int, Any]) -> list[str]:
    cosines, norms = {}, {}
    for at, vector in vectors.items():
        other = expected[at].astype(np.float64)
        if vector.shape != other.shape:
            return [f"{len(vector)} dimensions in place of {len(other)}"]
        if not np.isfinite(other).all():
            continue
        sizes = float(np.linalg.norm(vector)), float(np.linalg.norm(other))
        cosines[at] = 1 - float(vector @ other) / (sizes[0] * sizes[1])
        norms[at] = abs(sizes[0] / sizes[1] - 1)
    return [*_worst("1 - cosine", cosines, 1 - COSINE), *_worst("norm", norms, 1e-3)]


def _compare_tokens(numbers: Numbers, tokens: dict[int, int]) -> list[str]:
    counts = numbers.get("tokens", [None] * (max(tokens, default=0) + 1))
    differ = {at: abs(count - float(known)) for at, count in tokens.items() if (known := counts[at]) is not None}
    return _worst("tokens", differ, 0)


async def _roles(service: Service, numbers: Numbers, sample: Sample) -> list[str]:
    found = await _embed(service, numbers, sample)
    for role in ("query", "document"):
        found += [f"{role}: {line}" for line in await _embed(service, {"vectors": numbers[role]}, sample, role=role)]
    return found


async def _rank(service: Service, numbers: Numbers, sample: Sample) -> list[str]:
    alone: list[float] = []
    batched: list[float] = []
    for pair in sample.pairs:
        alone += (await service.score(ScoreJob(model=None, pairs=(pair,), raw_scores=True), ANONYMOUS)).scores
    for query in sample.queries:
        pairs = tuple((query, document) for document in sample.documents)
        batched += (await service.score(ScoreJob(model=None, pairs=pairs, raw_scores=True), ANONYMOUS)).scores
    logits = numbers["logits"]
    if not any(logit is not None for logit in logits):
        return ["the reference has no numbers"]
    changed = {at: abs(one - other) for at, (one, other) in enumerate(zip(alone, batched, strict=True))}
    scores = {
        at: abs(_sigmoid(one) - _sigmoid(float(one_of)))
        for at, one in enumerate(alone)
        if (one_of := logits[at]) is not None
    }
    return [
        *_worst("scores", scores),
        *_worst("changes in a batch", changed, LOGITS),
        *await _activated(service, numbers, sample),
    ]


async def _activated(service: Service, numbers: Numbers, sample: Sample) -> list[str]:
    """Compare the scores of /rerank with the reference's, where its activation is the sigmoid."""
    first = range(len(sample.documents))
    known = [numbers[kind][at] for kind in ("logits", "scores") if kind in numbers for at in first]
    logits, scores = np.array(known, dtype=np.float64).reshape(-1, len(first))[[0, -1]]
    if not np.allclose(1 / (1 + np.exp(-logits)), scores, atol=1e-5):
        return []
    job = RankJob(model=None, query=sample.queries[0], documents=sample.documents)
    ranked = await service.rank(job, ANONYMOUS)
    return _worst("ranks", {one.index: abs(one.score - float(scores[one.index])) for one in ranked.results})


def _sigmoid(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


async def _classify(service: Service, numbers: Numbers, sample: Sample) -> list[str]:
    found = []
    for kind, items in (("texts", sample.texts), ("pairs", sample.pairs)):
        kept = [at for at, logits in enumerate(numbers[kind]) if logits is not None]
        inputs = tuple(items[at] for at in kept)
        alone = [
            await service.classify(ClassifyJob(model=None, inputs=(one,), raw_scores=True), ANONYMOUS) for one in inputs
        ]
        batch = await service.classify(ClassifyJob(model=None, inputs=inputs, raw_scores=True), ANONYMOUS)
        differ = {
            at: float(np.abs(one.scores[0] - numbers[kind][at]).max()) for at, one in zip(kept, alone, strict=True)
        }
        changed = {at: _far(one.scores[0], row) for at, one, row in zip(kept, alone, batch.scores, strict=True)}
        found += [*_worst(kind, differ, LOGITS), *_worst(f"{kind} change in a batch", changed, LOGITS)]
    return found


async def _default(service: Service, numbers: Numbers, sample: Sample) -> list[str]:
    return await _embed(service, numbers, sample, normalize=True)


async def _multi_vector(service: Service, numbers: Numbers, sample: Sample) -> list[str]:
    return [
        f"{role}: {line}"
        for role in ("query", "document")
        for line in await _represent(service, numbers[role], sample, "multi_vector", role=role)
    ]


async def _sparse(service: Service, numbers: Numbers, sample: Sample) -> list[str]:
    return await _represent(service, numbers["sparse"], sample, "sparse")


async def _represent(service: Service, expected: Sequence[Any], sample: Sample, output: Any, **job: Any) -> list[str]:
    alone = _Answers()
    for text in sample.texts:
        await alone.add(
            service.represent(RepresentJob(model=None, inputs=(text,), outputs=(output,), **job), ANONYMOUS)
        )
    kept = alone.kept(expected)
    inputs = tuple(sample.texts[at] for at in kept)
    batch = await service.represent(RepresentJob(model=None, inputs=inputs, outputs=(output,), **job), ANONYMOUS)
    vectors = {at: _array(alone.found[at].texts[0], output) for at in kept}
    together = {at: _array(one, output) for at, one in zip(kept, batch.texts, strict=True)}
    return [
        *_worst(
            output,
            {at: _apart(vectors[at], expected[at]) for at in kept},
            LOGITS if output == "multi_vector" else MARGIN,
        ),
        *_worst("changes in a batch", {at: _apart(vectors[at], together[at]) for at in kept}, LOGITS),
        *(
            f"text {at}: no vector"
            for at, one in enumerate(alone.found)
            if isinstance(one, Exception) and _has(expected, at)
        ),
    ]


def _array(found: Any, output: str) -> Any:
    if output == "multi_vector":
        return found.multi_vector
    dense = np.zeros(found.sparse.size, dtype=np.float32)
    dense[found.sparse.indices] = found.sparse.values
    return dense


def _apart(one: Any, other: Any) -> float:
    """Return the largest difference, relative to the largest element where that is over 1."""
    if one.shape != other.shape:
        return float("inf")
    return float(np.abs(one - other).max() / max(1.0, float(np.abs(other).max()))) if one.size else 0.0


async def _similarity(service: Service, numbers: Numbers, sample: Sample) -> list[str]:
    expected = {at: float(value) for at, value in enumerate(numbers["similarities"]) if value is not None}
    kept = [at for at, value in expected.items() if np.isfinite(value)]
    pairs = tuple((sample.queries[0], sample.texts[at]) for at in kept)
    scored = await service.score(ScoreJob(model=None, pairs=pairs, raw_scores=True), ANONYMOUS)
    differ = {at: abs(score - expected[at]) / abs(expected[at]) for at, score in zip(kept, scored.scores, strict=True)}
    return _worst("similarities", differ, LOGITS)


_COMPARE: dict[Kind, Callable[[Service, Numbers, Sample], Awaitable[list[str]]]] = {
    "embed": _embed,
    "roles": _roles,
    "default": _default,
    "rank": _rank,
    "judge": _rank,
    "classify": _classify,
    "multi_vector": _multi_vector,
    "sparse": _sparse,
    "similarity": _similarity,
}
