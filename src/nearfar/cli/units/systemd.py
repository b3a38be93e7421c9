"""A service as systemd wants it. Tried with systemd 252; every line is known to 245 and later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearfar.cli.units.order import MARK, OPEN_FILES

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.cli.units.order import UnitOrder

# Not among these: MemoryDenyWriteExecute (engines write the code they run), PrivateDevices (GPUs are devices), and
# ProtectHome=yes (models and caches lie there).
_HARDENING = (
    "NoNewPrivileges=yes",
    "PrivateTmp=yes",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
)
_HARDENING_OF_SYSTEM = (
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "ProtectControlGroups=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectClock=yes",
    "CapabilityBoundingSet=",
)


def unit_file(order: UnitOrder) -> Path:
    """Give ``/etc/systemd/system/NAME.service``, or the user's own of it."""
    folder = order.root / "etc/systemd/system" if order.system else order.user_config / "systemd/user"
    return folder / f"{order.name}.service"


def render(order: UnitOrder) -> str:
    """Write the unit: it waits for the drain, starts again after all but a mistake in the settings."""
    sections = {
        "Unit": [
            "Description=nearfar, an embedding and rerank server",
            *(["Wants=network-online.target", "After=network-online.target"] if order.system else []),
            "StartLimitIntervalSec=120",
            "StartLimitBurst=5",
        ],
        "Service": [
            "Type=exec",
            f"ExecStart={' '.join(_word(word) for word in order.command)}",
            f"EnvironmentFile=-{_path(order.environment)}",
            f"WorkingDirectory={_path(order.config.parent) if order.config else '-%h' if not order.system else '/'}",
            "KillSignal=SIGTERM",
            "KillMode=mixed",
            f"TimeoutStopSec={order.stop_s}",
            "ExecReload=/bin/kill -HUP $MAINPID",
            "Restart=always",  # systemctl stop is final all the same
            "RestartSec=2",
            "RestartPreventExitStatus=2",
            f"LimitNOFILE={OPEN_FILES}",
            "UMask=0077",
            *_HARDENING,
            *(_of_system(order) if order.system else ["ProtectSystem=full"]),
        ],
        "Install": [f"WantedBy={'multi-user' if order.system else 'default'}.target"],
    }
    body = "\n\n".join("\n".join([f"[{name}]", *lines]) for name, lines in sections.items())
    return f"# {MARK}\n{body}\n"


def _of_system(order: UnitOrder) -> list[str]:
    """Let a whole machine's service write to caches of its own and nowhere else, as a user that owns nothing more."""
    user = [f"User={order.run_as}"] if order.run_as else ["DynamicUser=yes"]
    cache = f"/var/cache/{order.name}"
    homes = {"HF_HOME": f"{cache}/huggingface", "NEARFAR_CACHE_DIR": f"{cache}/converted", "HOME": cache}
    environment = [f"Environment={name}={folder}" for name, folder in homes.items()]
    return [*user, f"CacheDirectory={order.name}", *environment, *_HARDENING_OF_SYSTEM]


def clear(order: UnitOrder) -> list[list[str]]:  # noqa: ARG001 — launchd has something in the way
    """Give nothing."""
    return []


def start(order: UnitOrder) -> list[list[str]]:
    """Read the unit, let it start at every boot or login, and start it now, again if it runs."""
    unit = f"{order.name}.service"
    return [[*_systemctl(order), "daemon-reload"], [*_systemctl(order), "enable", unit], _restart(order)]


def stop(order: UnitOrder) -> list[list[str]]:
    """Stop it, and let nothing start it."""
    return [[*_systemctl(order), "disable", "--now", f"{order.name}.service"]]


def forget(order: UnitOrder) -> list[list[str]]:
    """Let systemd see that the file is gone."""
    return [[*_systemctl(order), "daemon-reload"]]


def status(order: UnitOrder) -> list[str]:
    """Show its state and its last lines."""
    return [*_systemctl(order), "--no-pager", "status", f"{order.name}.service"]


def logs(order: UnitOrder, lines: int, *, follow: bool) -> list[str]:
    """Show the journal's last lines, as they were logged."""
    whose = "--unit" if order.system else "--user-unit"
    more = ["--follow"] if follow else ["--no-pager"]
    return ["journalctl", whose, f"{order.name}.service", "--lines", str(lines), "--output", "cat", *more]


def _restart(order: UnitOrder) -> list[str]:
    return [*_systemctl(order), "restart", f"{order.name}.service"]


def _systemctl(order: UnitOrder) -> list[str]:
    return ["systemctl"] if order.system else ["systemctl", "--user"]


def _word(word: str) -> str:
    """Write a word of a command line so that systemd reads it as it is."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != word or " " in word or "'" in word or ";" in word else word


def _path(path: Path) -> str:
    return str(path).replace("%", "%%")
