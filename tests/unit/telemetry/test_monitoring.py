"""The dashboard, the alert rules and the recording rules, checked against the metrics that a server renders."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import promql_parser
import pytest
import yaml
from click.testing import CliRunner
from conftest import calling, running
from prometheus_client.parser import text_string_to_metric_families
from promql_parser import AggModifierType, AggregateExpr, Expr, MatrixSelector, VectorSelector

from nearfar import Settings
from nearfar.cli.assets import MONITORING, read_asset
from nearfar.cli.main import main
from nearfar.core import errors
from nearfar.telemetry.events import ConnectionClosed

if TYPE_CHECKING:
    from litestar import Litestar

pytestmark = pytest.mark.anyio

TARGET = {"instance", "job"}  # Prometheus' own, on every series
ELSEWHERE = {"up"}  # Prometheus' own metric
VARIABLES = {"$__rate_interval": "5m", "$instance": "here", "$model": "m"}

RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(read_asset(MONITORING["alerts"]))["groups"] for rule in group["rules"]
]
RECORDED: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(read_asset(MONITORING["tei-rules"]))["groups"] for rule in group["rules"]
]
DASHBOARD: dict[str, Any] = json.loads(read_asset(MONITORING["dashboard"]))
TARGETS: list[dict[str, str]] = [target for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
# expression, and the legend or annotation that names labels of its result
EXPRESSIONS = [
    *((target["expr"], target["legendFormat"]) for target in TARGETS),
    *((rule["expr"], " ".join(rule["annotations"].values())) for rule in RULES),
]


async def _provoke(app: Litestar) -> str:
    """Trigger everything that is counted; return the rendered metrics."""
    async with calling(app) as client:
        for text in ("one", "word " * 300, "boom"):
            await client.post("/v1/embeddings", json={"model": "text-embedding-3-small", "input": text})
        app.state.metrics.observe(ConnectionClosed(reason="idle"))
        text = (await client.get("/metrics")).text
        [model] = (await client.get("/v1/models")).json()["data"]
        await client.post("/admin/models/unload", json={"model": model["id"]})
        return text + "\n".join(
            line for line in (await client.get("/metrics")).text.splitlines() if "evictions" in line
        )


@pytest.fixture(scope="module")
async def rendered() -> dict[str, set[str]]:
    """Return the labels of every series of a real server, by the series' name."""
    async with running(Settings(engine="fake")) as app:
        text = await _provoke(app)
    return {
        sample.name: set(sample.labels) for family in text_string_to_metric_families(text) for sample in family.samples
    }


def parsed(expression: str) -> Expr:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return promql_parser.parse(expression)


def selectors(expression: Expr) -> dict[str, set[str]]:
    """Return the series that an expression reads, each with the labels that it matches."""
    found: dict[str, set[str]] = {}

    def visit(node: Expr) -> bool:
        node = node.vector_selector if isinstance(node, MatrixSelector) else node
        if isinstance(node, VectorSelector) and node.name:
            found.setdefault(node.name, set()).update(matcher.name for matcher in node.matchers.matchers)
        return True

    promql_parser.walk(expression, visit)
    return found


def aggregates(expression: Expr) -> list[AggregateExpr]:
    found: list[AggregateExpr] = []

    def visit(node: Expr) -> bool:
        if isinstance(node, AggregateExpr):
            found.append(node)
        return True

    promql_parser.walk(expression, visit)
    return found


@pytest.mark.parametrize(("expression", "beside"), EXPRESSIONS)
async def test_every_name_and_label_is_one_that_the_server_renders(
    expression: str, beside: str, rendered: dict[str, set[str]]
) -> None:
    tree = parsed(expression)

    for name, labels in selectors(tree).items():
        assert name in rendered.keys() | ELSEWHERE
        assert labels <= rendered.get(name, set()) | TARGET
    for aggregate in aggregates(tree):
        below = [rendered[name] for name in selectors(aggregate.expr)]
        assert set(aggregate.modifier.labels if aggregate.modifier else ()) <= set.intersection(*below) | TARGET
    assert labels_named(beside) <= labels_left(tree, rendered)


def labels_named(text: str) -> set[str]:
    """Find the labels that a legend or an annotation names."""
    return set(re.findall(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}", text)) - {"value"}


def labels_left(tree: Expr, rendered: dict[str, set[str]]) -> set[str]:
    """Find the labels that every result of an expression has."""
    if sums := aggregates(tree):
        assert all(one.modifier is None or one.modifier.type == AggModifierType.By for one in sums)
        kept = [set(one.modifier.labels if one.modifier else ()) for one in sums]
        return set.intersection(*kept)
    return set.intersection(*(rendered.get(name, set()) | TARGET for name in selectors(tree)))


async def test_recording_rules_read_only_metrics_and_labels_that_the_server_renders(
    rendered: dict[str, set[str]],
) -> None:
    found = {
        rule["record"]: {
            name: labels - rendered.get(name, set()) for name, labels in selectors(parsed(rule["expr"])).items()
        }
        for rule in RECORDED
    }
    dropped = {
        (rule["record"], label)
        for rule in RECORDED
        for aggregate in aggregates(parsed(rule["expr"]))
        for label in (aggregate.modifier.labels if aggregate.modifier else ())
        if label not in set.union(*(rendered[name] for name in selectors(aggregate.expr)))
    }

    assert {} == {record: names for record, names in found.items() if names.keys() - rendered.keys()}
    assert {} == {record: names for record, names in found.items() if any(names.values())}
    assert set() == dropped


def test_each_error_class_is_counted_under_one_of_tei_s_kinds() -> None:
    matchers = {
        rule["labels"]["err"]: re.search(r'error_type(=~?|!~)"([^"]*)"', rule["expr"])
        for rule in RECORDED
        if rule["record"] == "te_request_failure"
    }
    kinds = {
        error.__name__: [
            kind
            for kind, matcher in matchers.items()
            if matcher and (matcher[1] == "!~") != bool(re.fullmatch(matcher[2], error.__name__))
        ]
        for error in [*vars(errors).values(), asyncio.CancelledError]
        if isinstance(error, type) and issubclass(error, BaseException)
    }
    named = {name for matcher in matchers.values() if matcher for name in matcher[2].split("|")}

    assert [] == [name for name, found in kinds.items() if len(found) != 1]
    assert set() == named - kinds.keys()
    assert ["validation"] == kinds["InvalidDimensions"]
    assert ["inference"] == kinds["EngineError"]


async def test_every_metric_is_on_the_dashboard(rendered: dict[str, set[str]]) -> None:
    shown = {name for expression, _ in EXPRESSIONS for name in selectors(parsed(expression))}

    ours = {name for name in rendered if name.startswith("nearfar_")}
    families = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in ours}
    assert families == {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown if name.startswith("nearfar_")}


async def test_the_dashboard_s_variables_and_panels_are_whole(rendered: dict[str, set[str]]) -> None:
    variables = {of["name"]: of for of in DASHBOARD["templating"]["list"]}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]

    asked = re.findall(r"label_values\((\w+), (\w+)\)", json.dumps([of["query"] for of in variables.values()]))
    used = set(re.findall(r"\$\{?(\w+)", read_asset(MONITORING["dashboard"])))
    assert 2 == len(asked)
    assert all(label in rendered[name] | TARGET for name, label in asked)
    assert {"__rate_interval", "__all"} | variables.keys() == used
    assert len(set(ids)) == len(ids)


def test_every_alert_says_what_to_do_and_how_bad_it_is() -> None:
    names = [rule["alert"] for rule in RULES]

    assert len(set(names)) == len(names)
    assert {"critical", "warning", "info"} == {rule["labels"]["severity"] for rule in RULES}
    assert all({"summary", "description"} == rule["annotations"].keys() for rule in RULES)


@pytest.mark.parametrize("part", MONITORING)
def test_the_command_prints_them(part: str) -> None:
    result = CliRunner().invoke(main, ["monitoring", part])

    assert 0 == result.exit_code
    assert (json.loads if part == "dashboard" else yaml.safe_load)(result.output)
