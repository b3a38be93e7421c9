"""The process's environment: variables, cores, and CPU quota. The only module that reads or changes variables."""

from __future__ import annotations

import contextlib
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from nearfar.core.errors import SettingsError
from nearfar.core.toml_files import strip_text

PREFIX = "NEARFAR_"
_CONFIG = "NEARFAR_CONFIG"
# What Kubernetes sets for every Service of the namespace. One named nearfar or nearfar-… has our prefix.
# Docker's links of containers set the same, and NAME and ENV_….
_INJECTED = re.compile(
    r"NEARFAR_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?|ENV_\w+)"
)
_INJECTED_URL = re.compile(r"NEARFAR_(\w+_)?PORT")
_LINKED_NAME = re.compile(r"NEARFAR_(\w+_)?NAME")
_QUOTED = re.compile(r"""\A(["'])([^"']*)\1\Z""")
# Programs that a service starts need these, too: where and how the hub is reached.
_NETWORK = re.compile(
    r"(?i)(HF_\w+|HUGGING_FACE_HUB_TOKEN|HUGGINGFACE_HUB_\w+|(HTTPS?|ALL|NO)_PROXY|SSL_CERT_(FILE|DIR)"
    r"|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE)"
)
# Where the hierarchies are usually mounted; /proc/self/mountinfo names other places.
_USUAL_V1 = ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct")
_USUAL_V2 = ("sys/fs/cgroup",)


def our_variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the NEARFAR_ variables but those that Kubernetes injects, without white space and quotes around them.

    Unlike a shell, ``docker run --env-file`` keeps the quotes of NAME="value".
    """
    environ = os.environ if environ is None else environ
    injected = injected_variables(environ)
    ours = {name: value for name, value in environ.items() if name.startswith(PREFIX) and name not in injected}
    return {name: strip_text(_QUOTED.sub(r"\2", strip_text(value))) for name, value in ours.items()}


def injected_variables(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the names of variables with our prefix that Kubernetes sets for a Service, or Docker for a link."""
    environ = os.environ if environ is None else environ
    return [
        name
        for name, value in environ.items()
        if _INJECTED.fullmatch(name)
        or (_INJECTED_URL.fullmatch(name) and "://" in value)
        or (_LINKED_NAME.fullmatch(name) and value.startswith("/"))
    ]


def service_variables() -> dict[str, str]:
    """Return the variables that an installed service keeps: all of ours but NEARFAR_CONFIG, and those of the hub."""
    ours = {name: value for name, value in our_variables().items() if name != _CONFIG}
    return ours | network_variables()


def network_variables() -> dict[str, str]:
    """Return the variables that change how the hub is reached or where it caches, such as HTTPS_PROXY and HF_TOKEN."""
    return {name: value for name, value in os.environ.items() if value and _NETWORK.fullmatch(name)}


def pop_notify_socket() -> str | None:
    """Return the address that systemd wants state reports at, and hide it from child processes."""
    return os.environ.pop("NOTIFY_SOCKET", None)


def check_environment() -> None:
    """Raise SettingsError for what libraries fail on: no temporary folder, or a timeout of the hub that isn't a number.

    huggingface_hub reads the timeouts when it is imported, which the engines do for local models as well.
    """
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        value = os.environ.get(name, "0")
        try:
            int(value)
        except ValueError as error:
            raise SettingsError(f"{name} must be a whole number of seconds, not {value[:50]!r}") from error
    try:
        tempfile.gettempdir()
    except OSError as error:
        why = "no folder for temporary files can be written; mount /tmp, or set TMPDIR to a folder that can be written"
        raise SettingsError(why) from error


def usable_cores() -> int:
    """Return how many cores this process may use: its affinity, or its CPU quota, rounded up, if that is lower."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return available if quota is None else max(1, min(available, math.ceil(quota)))


def configure_openmp() -> None:
    """Make OpenMP's threads sleep after 2,000 spins of waiting for each other, and start no more than usable cores.

    They spin 30 billion times by default. With another busy process on one of two cores, a forward pass then took
    750 ms instead of 23 ms; without one, the limit costs nothing. Variables that are set already stay as they are. Must
    run before torch is imported.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    if cpu_quota() is not None:  # OpenMP itself only heeds the affinity
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the CPU quota in cores, such as 0.5; None without one.

    ``docker run --cpus`` and Kubernetes' limits set it. It is the lowest of this process's control group and its
    parents, in both versions of control groups. ``root`` is the folder that has ``proc`` and ``sys``.
    """
    quotas: list[float] = []
    for folder in _groups(root):
        with contextlib.suppress(OSError, ValueError):  # a group without the file has no quota
            quotas.append(_read_quota(folder))
    return min((quota for quota in quotas if quota > 0), default=None)


def total_memory(root: Path = Path("/")) -> int:
    """Return the machine's memory in bytes, or the limit of this process's control group, version 2, if lower."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for folder in _groups(root):
        with contextlib.suppress(OSError, ValueError):  # no such file, or ``max``
            limits.append(int((folder / "memory.max").read_text()))
    return min(limits)


def _read_quota(folder: Path) -> float:
    """Return a group's own quota in cores. Raises ValueError for ``max``, OSError without the files of either version.

    Version 1 has -1 for no quota.
    """
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except FileNotFoundError:
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    return int(quota) / int(period)


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's groups and of all above them, for the CPU controller of each version."""
    mounts = list(_mounts(root))
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, group = line.split(":", 2)
        if number == "0":
            found = [(root / folder, "/") for folder in _USUAL_V2]
            found += [(folder, top) for kind, folder, top, _ in mounts if kind == "cgroup2"]
        elif "cpu" in controllers.split(","):
            found = [(root / folder, "/") for folder in _USUAL_V1]
            found += [(folder, top) for kind, folder, top, options in mounts if kind == "cgroup" and "cpu" in options]
        else:
            continue
        for folder, top in found:
            relative = PurePosixPath(group)
            # A container may see the path on the host, and only its own group mounted.
            relative = relative.relative_to(top) if relative.is_relative_to(top) else PurePosixPath()
            yield from (folder / parent for parent in (relative, *relative.parents))


def _mounts(root: Path) -> Iterator[tuple[str, Path, str, list[str]]]:
    """Yield type, mount point, root within the hierarchy, and options of each mounted hierarchy."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in {"cgroup", "cgroup2"}:
            _, _, _, top, point, *_ = before.split(" ")
            yield kind, root / point.lstrip("/"), top, options.split(",")


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:  # not Linux
        return []
