"""Every case against any server: ours, another one, or the vendor itself.

``make compat URL=http://127.0.0.1:9000`` prints a table of what agrees, endpoint by endpoint, and then wherein the
others differ. Without ``--exact`` only the shape counts: status, keys, types.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from comparing import cases_of, differences, expanded, shape_differences

if TYPE_CHECKING:
    from collections.abc import Sequence

FIXTURES = Path(__file__).parent
_KEYS = ("sk-fixture", "secret")  # what cases call the right key of a server that asks for one


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay what was asked for; give 1 when anything differs, 2 when no server answers or no case is meant."""
    said = _parse(arguments)
    cases = _chosen(said.only)
    if not cases:
        print("no such dialect, endpoint or case; see the folders of compat_fixtures", file=sys.stderr)
        return 2
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    notes: list[str] = []
    with httpx.Client(base_url=said.url, timeout=said.timeout_s) as client:
        for name, case in cases.items():
            try:
                outcome, lines = _replay(client, case, said)
            except httpx.TransportError as error:
                print(f"{said.url} doesn't answer: {type(error).__name__}", file=sys.stderr)
                return 2
            counts[name.rpartition("/")[0]][outcome] += 1
            notes += [f"{name}: {line}" for line in lines]
    _print_table(counts)
    print(*notes, sep="\n")
    return int(any(row["differs"] for row in counts.values()))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:9000", help="the server's root, without /v1")
    parser.add_argument("--key", help="the server's API key; cases that need one are then run as well")
    parser.add_argument("--model", help="ask for this model wherever a case asks for one that is answered")
    parser.add_argument("--exact", action="store_true", help="compare whole answers, as those of the built-in model")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="such as openai, cohere/rerank_v2")
    parser.add_argument("--timeout-s", type=float, default=60.0)
    return parser.parse_args(arguments)


def _chosen(only: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Give the cases whose names begin with one of these, or all: ``openai/embeddings/text`` and the like."""
    named = {
        f"{file.relative_to(FIXTURES).parent.as_posix()}/{name}": case
        for file in sorted(FIXTURES.rglob("*.json"))
        for name, case in cases_of(file)
    }
    return {name: case for name, case in named.items() if not only or name.startswith(tuple(only))}


def _replay(client: httpx.Client, case: dict[str, Any], said: argparse.Namespace) -> tuple[str, list[str]]:
    """Send one case, unless it needs a server set up in another way; give the outcome, and what differs."""
    needs = case.get("server", {})
    if needs and not (said.key and needs.keys() == {"api_key"}):
        return "not run", []
    request, expect = case["request"], case["expect"]
    headers = {"content-type": "application/json", **_headers(request, needs, said.key)}
    reply = client.request(request["method"], request["path"], content=_content(request, expect, said), headers=headers)
    body = _json(reply)
    found = (
        differences(expect, reply.status_code, reply.headers, body)
        if said.exact
        else shape_differences(expect, reply.status_code, body)
    )
    return ("differs" if found else "agrees"), found


def _headers(request: dict[str, Any], needs: dict[str, Any], key: str | None) -> dict[str, str]:
    """Give the case's headers, with the real key where the case has the right one or says nothing about keys."""
    headers: dict[str, str] = dict(request.get("headers", {}))
    if key and not needs:
        headers.setdefault("authorization", f"Bearer {key}")
    for right in _KEYS:
        headers = {name: value.replace(f"Bearer {right}", f"Bearer {key}") for name, value in headers.items()}
    return headers


def _content(request: dict[str, Any], expect: dict[str, Any], said: argparse.Namespace) -> bytes | None:
    if "body" in request:
        return str(request["body"]).encode()
    if "json" not in request:
        return None
    body = expanded(request["json"])
    if said.model and isinstance(body, dict) and body.get("model") and expect["status"] < 400:
        body["model"] = said.model
    return json.dumps(body).encode()


def _json(reply: httpx.Response) -> Any:
    try:
        return reply.json()
    except ValueError:
        return reply.text


def _print_table(counts: dict[str, Counter[str]]) -> None:
    outcomes = ("agrees", "differs", "not run")
    width = max(map(len, counts))
    print(f"{'endpoint':{width}}", *(f"{outcome:>8}" for outcome in outcomes))
    for endpoint, row in counts.items():
        print(f"{endpoint:{width}}", *(f"{row[outcome]:8}" for outcome in outcomes))
    totals = {outcome: sum(row[outcome] for row in counts.values()) for outcome in outcomes}
    print(f"{'all':{width}}", *(f"{totals[outcome]:8}" for outcome in outcomes))
    if totals["not run"]:
        print("Not run: cases for a server with other settings; with --key those that need a key are run as well.")
    print()


if __name__ == "__main__":
    sys.exit(main())
