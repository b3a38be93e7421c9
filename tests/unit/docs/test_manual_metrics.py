"""The manual's table of metrics is what a real server renders."""

from __future__ import annotations

import re

import pytest
from conftest import calling, running
from manual import EVERYTHING, codes, read, tables
from prometheus_client.parser import text_string_to_metric_families

from nearfar import Settings
from nearfar.telemetry.events import ConnectionClosed

pytestmark = pytest.mark.anyio

BUCKETS = {"le"}


async def rendered() -> dict[str, tuple[str, set[str]]]:
    """Return type and labels by name, after everything that is counted has happened."""
    async with running(Settings(engine="fake")) as app, calling(app) as client:
        for text in ("one", "word " * 300, "boom"):
            await client.post("/v1/embeddings", json={"model": "text-embedding-3-small", "input": text})
        app.state.metrics.observe(ConnectionClosed(reason="idle"))
        before = (await client.get("/metrics")).text
        [model] = (await client.get("/v1/models")).json()["data"]
        await client.post("/admin/models/unload", json={"model": model["id"]})
        after = (await client.get("/metrics")).text
    found: dict[str, tuple[str, set[str]]] = {}
    for family in [*text_string_to_metric_families(before), *text_string_to_metric_families(after)]:
        labels = {label for sample in family.samples for label in sample.labels} - BUCKETS
        name = f"{family.name}_total" if family.type == "counter" else family.name
        if family.samples:
            found.setdefault(name, (family.type, labels))
    return found


async def test_every_metric_is_in_the_table_with_its_type_and_labels() -> None:
    table = {
        codes(name)[0]: (kind, {*codes(labels)})
        for name, kind, labels, _ in tables("observability", "| metric | type | labels | meaning |")
    }

    ours = {name: about for name, about in (await rendered()).items() if name.startswith("nearfar_")}

    assert ours == table


async def test_every_metric_that_is_named_exists() -> None:
    known = {re.sub(r"_total$", "", name) for name in await rendered()}

    unknown = [
        f"{page}: {name}"
        for page in EVERYTHING
        for name in re.findall(r"`((?:nearfar|process)_\w+)`", read(page))
        if re.sub(r"_(total|bucket|sum|count)$", "", name) not in known
    ]

    assert [] == unknown
