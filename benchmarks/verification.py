"""What does comparing a model with its library cost at the first load? ``python benchmarks/verification.py --help``.

Starts the server on a new folder and an empty cache, with and without ``--no-verify``, in turn. The models are the
built-in one's copy, and seeded ones with the layers of a BERT of 300 million parameters and of a Qwen3 of 600 million.
CPU time is that of all processes until the server has stopped. Prints a Markdown table, and writes
results/verification.json.
"""

from __future__ import annotations

import argparse
import re
import resource
import shutil
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

from harness.launcher import Server, nearfar
from harness.machine import describe, machine_facts
from harness.report import RESULTS, markdown_table, number, write_json

from nearfar.models.hub.checkpoint import find_builtin

if TYPE_CHECKING:
    from collections.abc import Sequence

# Families of the tests' checkpoints, with the layers of bert-large and Qwen3-0.6B.
_SEEDED: dict[str, tuple[str, dict[str, Any]]] = {
    "BERT, 302 million in 24 layers": (
        "bert",
        {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    ),
    "Qwen3, 440 million in 28 layers": (
        "qwen3",
        {
            "hidden_size": 1024,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 3072,
        },
    ),
}
_POSITIONS = 512
# With the tests' larger weights, so many layers would turn rounding into other numbers.
_TRAINED: dict[str, Any] = {"max_position_embeddings": _POSITIONS, "initializer_range": 0.02}
_LOG = RESULTS / "verification.log"
_RESULT = re.compile(r"((?:not )?verified\b[^\"\n]*?) \([\d.]+ s\)")


class Start(NamedTuple):
    """Seconds until the first vector, seconds of CPU of all processes, and what the log has of the verification."""

    wall_s: float
    cpu_s: float
    result: str


def main() -> None:
    """Run the benchmark, print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=["torch", "openvino"])
    parser.add_argument("--models", nargs="+", default=["MiniLM", *_SEEDED], help="names begin with one of these")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    facts = machine_facts()
    print(describe(facts))
    rows = []
    for name in ("MiniLM", *_SEEDED):
        if name.startswith(tuple(arguments.models)):
            with tempfile.TemporaryDirectory(prefix="nearfar-") as place:
                folder = write_model(name, Path(place) / "model")
                rows += [measure(name, folder, engine, arguments.rounds) for engine in arguments.engines]
    header = [
        "model",
        "engine",
        "first load with, s",
        "without, s",
        "CPU with, s",
        "without, s",
        "cost, s",
        "of CPU, s",
    ]
    print(markdown_table([*header, "result"], rows))
    write_json(RESULTS / "verification.json", {"machine": facts, "rows": rows})


def write_model(name: str, folder: Path) -> Path:
    """Copy the built-in model, or write a seeded one."""
    if name not in _SEEDED:
        return Path(shutil.copytree(find_builtin().folder, folder))
    sys.path.append(str(Path(__file__).parents[1] / "tests/support"))
    from checkpoints import write_files, write_transformer

    family, size = _SEEDED[name]
    with patch.object(tempfile, "tempdir", str(folder.parent)):  # not into the tests' cache
        write_transformer(folder, family, **size, **_TRAINED)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    files: dict[str, object] = {
        "modules.json": [
            {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for at, (path, kind) in enumerate(modules)
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": size["hidden_size"], "pooling_mode": "mean"},
        "sentence_bert_config.json": {"max_seq_length": _POSITIONS, "do_lower_case": False},
    }
    return write_files(folder, files)


def measure(name: str, folder: Path, engine: str, rounds: int) -> list[str]:
    """Return a row of the table: medians of the rounds."""
    pairs = [[start(folder, engine, verify=verify) for verify in (True, False)] for _ in range(rounds)]
    verified, plain = zip(*pairs, strict=True)
    (wall, cpu), (plain_wall, plain_cpu) = _medians(verified), _medians(plain)
    seconds = [wall, plain_wall, cpu, plain_cpu, wall - plain_wall, cpu - plain_cpu]
    row = [name, engine, *(number(one, 2) for one in seconds), verified[0].result]
    print(row, file=sys.stderr, flush=True)
    return row


def _medians(starts: Sequence[Start]) -> tuple[float, float]:
    return statistics.median(one.wall_s for one in starts), statistics.median(one.cpu_s for one in starts)


def start(folder: Path, engine: str, *, verify: bool) -> Start:
    """Start the server with an empty cache, and stop it after its first vector."""
    spec = nearfar(model=str(folder), engine=engine, dtype="float32")
    with tempfile.TemporaryDirectory(prefix="nearfar-") as place:
        environment = {"NEARFAR_CACHE_DIR": f"{place}/cache", "NEARFAR_VERIFY": str(verify).lower()}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with Server(replace(spec, environment=environment, start_timeout_s=600), _LOG) as server:
            pass
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = _RESULT.search(_LOG.read_text(encoding="utf-8"))
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Start(server.start_s, cpu_s, found[1] if found else "not verified")


if __name__ == "__main__":
    main()
