"""The commands ``check`` and ``models``: open models as the server does, without serving them, and describe them."""

from __future__ import annotations

import shlex
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from nearfar.core.caller import ANONYMOUS
from nearfar.core.jobs import ClassifyJob, EmbedJob, RankJob
from nearfar.engines.selection import installed_engines
from nearfar.models.hub.checkpoint import find_checkpoint
from nearfar.models.hub.download import Hub
from nearfar.serving.local_models import describe_folder, find_local_models
from nearfar.serving.registry.fleet import Fleet
from nearfar.serving.registry.names import VendorNames
from nearfar.serving.service import Service
from nearfar.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from nearfar.core.settings import Device, Settings
    from nearfar.core.types import ModelInfo

_QUERY = "How do plants make food from sunlight?"
_DOCUMENTS = (
    "The stock market fell sharply on Monday.",
    "Photosynthesis turns light, water and carbon dioxide into sugar in green leaves.",
    "He parked the car behind the station.",
)
_BEST = 1
_SPEED_ROWS = 256


async def check_models(settings: Settings, report: Callable[[str], object]) -> bool:
    """Open every model of the settings, run it, and ``report`` what it is. Return whether all passed the test.

    Raises the SetupError of a model that can't be opened.
    """
    async with open_service(settings) as (fleet, service):
        return all([await _check(info, service, report) for info in fleet.infos()])


@asynccontextmanager
async def open_service(settings: Settings) -> AsyncIterator[tuple[Fleet, Service]]:
    """Open every model of the settings without serving it. Raises the SetupError of one that can't be opened."""
    models = tuple(msgspec.structs.replace(model, load="start") for model in settings.models)
    settings = msgspec.structs.replace(settings, models=models, while_loading="wait")
    metrics = Metrics(lambda: fleet.depths())  # noqa: PLW0108 — the fleet comes after its observer
    fleet = Fleet(settings, VendorNames({}, {}), metrics.observe)
    service = Service(fleet, metrics.observe, settings)
    fleet.start()
    try:
        await fleet.opened()
        yield fleet, service
    finally:
        await fleet.close()
        service.close()


async def _check(info: ModelInfo, service: Service, report: Callable[[str], object]) -> bool:
    for label, value in (
        ("model", f"{info.name} ({info.source}, {info.revision or 'no revision'})"),
        ("engine", f"{info.engine} on {info.device} in {info.dtype}"),
        ("pooling", f"{info.pooling} ({_from(info.pooling_source)})" if info.pooling else f"none: {_kind(info)}"),
        ("vectors", "; ".join(_vectors(info)) or "none"),
        ("limit", f"{info.max_tokens} tokens"),
        ("tokens", _from(info.tokenizer_source)),
        ("prompts", f"{', '.join(info.prompts)} ({_from(info.prompts_source)})" if info.prompts else "none"),
        ("score", info.score or "none"),
        ("verified", info.verified),
    ):
        report(f"{label:<9}{value}")
    passed = await _makes_sense(info, service, report)
    report(f"speed    {await _speed(info, service)}")
    return passed


def _from(source: str) -> str:
    """Return the source of a value in words: a file, or the family's default."""
    return source if source.startswith(("as ", "default ")) else f"from {source}"


def _kind(info: ModelInfo) -> str:
    if info.token_dim or info.vocabulary:
        return f"read from {info.pooling_source}"
    return f"a classifier ({', '.join(info.labels)})" if len(info.labels) > 1 else "a cross-encoder"


def _vectors(info: ModelInfo) -> Iterator[str]:
    if info.dim:
        yield f"{info.dim} dimensions, {'unit length' if info.normalized else 'not normalized'}"
    if info.token_dim:
        yield f"{info.token_dim} dimensions a token"
    if info.vocabulary:
        yield f"weights of {info.vocabulary:,} words"


async def _makes_sense(info: ModelInfo, service: Service, report: Callable[[str], object]) -> bool:
    """Report the scores of known sentences. Return whether the right one ranks first; True for a classifier."""
    if "rank" not in info.tasks:
        done = await service.classify(ClassifyJob(model=info.name, inputs=_DOCUMENTS), ANONYMOUS)
        for document, scores in zip(_DOCUMENTS, done.scores, strict=True):
            report(f"         {scores.max():.4f}  {info.labels[int(scores.argmax())]}: {document}")
        report("sense    unknown: a classifier's labels can't be tested")
        return True
    ranked = await service.rank(RankJob(model=info.name, query=_QUERY, documents=_DOCUMENTS), ANONYMOUS)
    for found in ranked.results:
        report(f"         {found.score:.4f}  {_DOCUMENTS[found.index]}")
    passed = ranked.results[0].index == _BEST
    report(f"sense    {'yes' if passed else 'NO'}: the sentence about photosynthesis should come first for {_QUERY!r}")
    return passed


async def _speed(info: ModelInfo, service: Service) -> str:
    texts = tuple(f"{_DOCUMENTS[at % len(_DOCUMENTS)]} ({at})" for at in range(_SPEED_ROWS))
    started = time.perf_counter()
    if "embed" in info.tasks:
        usage = (await service.embed(EmbedJob(model=info.name, inputs=texts), ANONYMOUS)).usage
    elif "rank" not in info.tasks:
        usage = (await service.classify(ClassifyJob(model=info.name, inputs=texts), ANONYMOUS)).usage
    else:
        usage = (await service.rank(RankJob(model=info.name, query=_QUERY, documents=texts), ANONYMOUS)).usage
    seconds = time.perf_counter() - started
    return f"{_SPEED_ROWS / seconds:,.0f} texts/s, {usage.tokens / seconds:,.0f} tokens/s ({_SPEED_ROWS} short texts)"


def describe_files(settings: Settings) -> Iterator[str]:
    """Find or download the settings' first model; yield its folder and what it is. Raises CheckpointError."""
    name = settings.models[0].name
    checkpoint = find_checkpoint(name, Hub(endpoint=settings.hub_endpoint, offline=settings.offline))
    yield f"{checkpoint.name}  {describe_folder(checkpoint.folder, checkpoint.name).about}"
    yield f"folder    {checkpoint.folder}"
    yield f"serve it  nearfar serve {shlex.quote(name)}"


def list_local_models(settings: Settings) -> Iterator[str]:
    """Yield a line for each model on this disk: the built-in one, the settings' folders, the hub's cache."""
    for model in find_local_models(settings):
        size = "" if model.bytes is None else f", {model.bytes / 1e6:,.0f} MB"
        yield f"{model.name}  {model.about}{size}"


def list_engines(device: Device) -> Iterator[str]:
    """Yield a line for each installed engine, with what prevents it from running here."""
    for name, kind in sorted(installed_engines().items()):
        yield f"engine {name}: {kind.unavailable_reason(device) or 'can run here'}"
