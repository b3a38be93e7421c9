"""Replay every case against any server: nearfar, another server, or the vendor's.

``make compat URL=http://127.0.0.1:9000`` prints the number of matching cases by endpoint, then the differences of the
others. Without ``--exact`` only the shape is compared: status, keys, types.
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
_KEYS = ("sk-fixture", "secret")  # the valid key in cases for a server with a key


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay the selected cases; return 1 if any differs, 2 if no server responds or no case is selected."""
    options = _parse(arguments)
    cases = _selected(options.only)
    if not cases:
        print("no such dialect, endpoint or case; see the folders of compat_fixtures", file=sys.stderr)
        return 2
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    notes: list[str] = []
    with httpx.Client(base_url=options.url, timeout=options.timeout_s) as client:
        for name, case in cases.items():
            try:
                outcome, lines = _replay(client, case, options)
            except httpx.TransportError as error:
                print(f"{options.url} doesn't respond: {type(error).__name__}", file=sys.stderr)
                return 2
            counts[name.rpartition("/")[0]][outcome] += 1
            notes += [f"{name}: {line}" for line in lines]
    _print_table(counts)
    print(*notes, sep="\n")
    return int(any(row["differs"] for row in counts.values()))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:9000", help="the server's root, without /v1")
    parser.add_argument("--key", help="the server's API key; also runs the cases that need one")
    parser.add_argument("--model", help="use this model in every case that expects success")
    parser.add_argument(
        "--exact", action="store_true", help="compare whole responses; only the built-in model's are equal"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="such as openai or cohere/rerank_v2")
    parser.add_argument("--timeout-s", type=float, default=60.0)
    return parser.parse_args(arguments)


def _selected(only: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return all cases, or those with a name that starts with one of these, such as ``openai/embeddings``."""
    named = {
        f"{file.relative_to(FIXTURES).parent.as_posix()}/{name}": case
        for file in sorted(FIXTURES.rglob("*.json"))
        for name, case in cases_of(file)
    }
    return {name: case for name, case in named.items() if not only or name.startswith(tuple(only))}


def _replay(client: httpx.Client, case: dict[str, Any], options: argparse.Namespace) -> tuple[str, list[str]]:
    """Send one case, unless it needs other server settings; return the outcome and the differences."""
    needs = case.get("server", {})
    if needs and not (options.key and needs.keys() == {"api_key"}):
        return "not run", []
    request, expect = case["request"], case["expect"]
    headers = {"content-type": "application/json", **_headers(request, needs, options.key)}
    response = client.request(
        request["method"], request["path"], content=_content(request, expect, options), headers=headers
    )
    body = _json(response)
    found = (
        differences(expect, response.status_code, response.headers, body)
        if options.exact
        else shape_differences(expect, response.status_code, body)
    )
    return ("differs" if found else "agrees"), found


def _headers(request: dict[str, Any], needs: dict[str, Any], key: str | None) -> dict[str, str]:
    """Return the case's headers, with the real key in place of the valid one, or added if the case has none."""
    headers: dict[str, str] = dict(request.get("headers", {}))
    if key and not needs:
        headers.setdefault("authorization", f"Bearer {key}")
    for valid in _KEYS:
        headers = {name: value.replace(f"Bearer {valid}", f"Bearer {key}") for name, value in headers.items()}
    return headers


def _content(request: dict[str, Any], expect: dict[str, Any], options: argparse.Namespace) -> bytes | None:
    if "body" in request:
        return str(request["body"]).encode()
    if "json" not in request:
        return None
    body = expanded(request["json"])
    if options.model and isinstance(body, dict) and body.get("model") and expect["status"] < 400:
        body["model"] = options.model
    return json.dumps(body).encode()


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return response.text


def _print_table(counts: dict[str, Counter[str]]) -> None:
    outcomes = ("agrees", "differs", "not run")
    width = max(map(len, counts))
    print(f"{'endpoint':{width}}", *(f"{outcome:>8}" for outcome in outcomes))
    for endpoint, row in counts.items():
        print(f"{endpoint:{width}}", *(f"{row[outcome]:8}" for outcome in outcomes))
    totals = {outcome: sum(row[outcome] for row in counts.values()) for outcome in outcomes}
    print(f"{'all':{width}}", *(f"{totals[outcome]:8}" for outcome in outcomes))
    if totals["not run"]:
        print("Not run: cases that need other server settings. --key runs those that need a key.")
    print()


if __name__ == "__main__":
    sys.exit(main())
