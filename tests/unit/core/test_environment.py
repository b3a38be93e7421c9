"""The CPU quota is the lowest of the control group's and its parents', in both versions of control groups."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from nearfar.core.environment import check_environment, cpu_quota, total_memory
from nearfar.core.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

CGROUP = "sys/fs/cgroup"
NESTED = "/kubepods.slice/pod1/container"
V1 = f"5:devices:/x\n4:cpu,cpuacct:{NESTED}\n0::/\n"
V2 = f"0::{NESTED}\n"
NEAR = "sys/fs/cgroup/kubepods.slice/pod1/container"


def mount(point: str, kind: str, options: str, top: str = "/") -> str:
    return f"31 23 0:28 {top} /{point} rw,relatime shared:9 - {kind} cgroup {options}\n"


# expected, /proc/self/cgroup, /proc/self/mountinfo, files
CASES: dict[str, tuple[float | None, str, str, dict[str, str]]] = {
    "nothing": (None, "", "", {}),
    "v2 without a quota": (None, "0::/\n", "", {f"{CGROUP}/cpu.max": "max 100000\n"}),
    "v2 in a container": (0.5, "0::/\n", "", {f"{CGROUP}/cpu.max": "50000 100000\n"}),
    "v2 of one and a half cores": (1.5, "0::/\n", "", {f"{CGROUP}/cpu.max": "75000 50000"}),
    "v2 nested": (2.0, V2, "", {f"{NEAR}/cpu.max": "200000 100000"}),
    "v2 of a parent": (1.0, V2, "", {f"{CGROUP}/kubepods.slice/cpu.max": "1000 1000", f"{NEAR}/cpu.max": "max 1000"}),
    "v2 the lowest": (0.25, V2, "", {f"{CGROUP}/kubepods.slice/cpu.max": "25 100", f"{NEAR}/cpu.max": "2000 1000"}),
    "v2 elsewhere": (3.0, "0::/a\n", mount("cg", "cgroup2", "rw"), {"cg/a/cpu.max": "300 100"}),
    "v2 with the host's path": (4.0, "0::/../../x\n", mount("cg", "cgroup2", "rw", "/x"), {"cg/cpu.max": "400 100"}),
    "v1 without a quota": (
        None,
        "4:cpu:/\n",
        "",
        {f"{CGROUP}/cpu/cpu.cfs_quota_us": "-1\n", f"{CGROUP}/cpu/cpu.cfs_period_us": "100000\n"},
    ),
    "v1 in a container": (
        0.5,
        "4:cpu:/\n",
        "",
        {f"{CGROUP}/cpu/cpu.cfs_quota_us": "50000\n", f"{CGROUP}/cpu/cpu.cfs_period_us": "100000\n"},
    ),
    "v1 mounted from its own group": (
        1.5,
        V1,
        mount(f"{CGROUP}/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct", NESTED),
        {f"{CGROUP}/cpu,cpuacct/cpu.cfs_quota_us": "150000", f"{CGROUP}/cpu,cpuacct/cpu.cfs_period_us": "100000"},
    ),
    "v1 nested": (
        0.1,
        V1,
        mount("c", "cgroup", "rw,cpu,cpuacct") + mount("d", "cgroup", "rw,devices"),
        {f"c{NESTED}/cpu.cfs_quota_us": "10000", f"c{NESTED}/cpu.cfs_period_us": "100000"},
    ),
    "v1 set to nonsense": (None, "4:cpu:/\n", "", {f"{CGROUP}/cpu/cpu.cfs_quota_us": "?"}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_lowest_quota_is_found(case: str, tmp_path: Path) -> None:
    expected, groups, mounts, files = CASES[case]
    proc = {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts} if groups else {}
    for name, content in (proc | files).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)

    assert expected == cpu_quota(tmp_path)


def test_memory_is_limited_by_the_lowest_group(tmp_path: Path) -> None:
    without = total_memory(tmp_path)
    files = {
        "proc/self/cgroup": "0::/a/b\n",
        f"{CGROUP}/memory.max": "max\n",
        f"{CGROUP}/a/memory.max": "1048576\n",
        f"{CGROUP}/a/b/memory.max": "2097152\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)

    assert 1048576 == total_memory(tmp_path) < without


# A limit of 0 bytes a file, so that no file can be written: as on a read-only root without /tmp.
NO_FILES = (
    "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); from nearfar.cli.main import main; main()"
)


@pytest.mark.parametrize("command", ["serve", "check"])
def test_without_a_folder_for_temporary_files_the_way_out_is_one_sentence(command: str) -> None:
    line = [sys.executable, "-c", NO_FILES, command]

    ended = subprocess.run(line, capture_output=True, text=True, check=False)

    assert 2 == ended.returncode
    assert "no folder for temporary files can be written; mount /tmp, or set TMPDIR to a folder" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("name", ["HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"])
@pytest.mark.parametrize("value", ["10s", "1.5", ""])
def test_a_timeout_of_the_hub_that_is_not_a_number_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface_hub raises a ValueError for it when an engine imports it, even for a local model."""
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError) as refused:
        check_environment()

    assert f"{name} must be a whole number of seconds, not {value!r}" == str(refused.value)
