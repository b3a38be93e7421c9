"""Machine facts: CPU, memory, versions. Printed above every table and written to every JSON file."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

_SIMD = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm")
_PACKAGES = (
    "nearfar",
    "torch",
    "openvino",
    "onnxruntime",
    "mlx",
    "transformers",
    "sentence-transformers",
    "granian",
    "litestar",
)


def machine_facts() -> dict[str, Any]:
    """Return facts about this machine and the packages installed in this Python."""
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": _physical_cores(),
        "threads": os.cpu_count(),
        "simd": _simd(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": versions(_PACKAGES),
    }


def describe(facts: dict[str, Any]) -> str:
    """Format the facts in three lines."""
    packages = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} threads, {facts['memory_gib']} GiB; "
        f"{' '.join(facts['simd']) or 'no known SIMD extension'}\n"
        f"{facts['platform']}, Python {facts['python']}, {facts['date']}, commit {facts['commit']}\n"
        f"{packages}"
    )


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    if platform.system() == "Darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string")
    named = re.search(r"^model name\s*: (.+)$", _cpuinfo(), re.MULTILINE)
    family = re.search(r"^cpu family\s*: (\d+)\nmodel\s*: (\d+)", _cpuinfo(), re.MULTILINE)
    numbers = f" (family {family[1]}, model {family[2]})" if family else ""  # virtual machines hide the name
    return (named[1] if named else platform.processor() or platform.machine()) + numbers


def _physical_cores() -> int | None:
    if platform.system() == "Darwin":
        return int(_output("sysctl", "-n", "hw.physicalcpu"))
    pairs = re.findall(r"^physical id\s*: (\d+)$.*?^core id\s*: (\d+)$", _cpuinfo(), re.MULTILINE | re.DOTALL)
    return len(set(pairs)) or os.cpu_count()


def _simd() -> list[str]:
    flags = re.search(r"^(?:flags|Features)\s*: (.+)$", _cpuinfo(), re.MULTILINE)
    present = set(flags[1].split()) if flags else set()
    return [name for name in _SIMD if name in present]


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def _commit() -> str | None:
    """Return this checkout's commit, with a + if files have changed since; None outside a checkout."""
    folder = str(Path(__file__).parent)
    commit = _output("git", "-C", folder, "rev-parse", "--short", "HEAD")
    changed = _output("git", "-C", folder, "status", "--porcelain", "--untracked-files=no")
    return f"{commit}{'+' if changed else ''}" if commit else None


def _output(program: str, *arguments: str) -> str:
    """Run a program and return its output; empty if it is missing or fails."""
    path = shutil.which(program)
    if path is None:
        return ""
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603 — fixed programs


if __name__ == "__main__":
    print(describe(machine_facts()))
