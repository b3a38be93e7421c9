"""Units and commands of systemd. Tested with version 252; every line works since 245."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nearfar.cli.units.spec import MARK, OPEN_FILES

if TYPE_CHECKING:
    from pathlib import Path

    from nearfar.cli.units.spec import ServiceSpec

# Left out: MemoryDenyWriteExecute (engines generate code), PrivateDevices (GPUs are devices), and ProtectHome=yes
# (models and caches are there).
_HARDENING = (
    "NoNewPrivileges=yes",
    "PrivateTmp=yes",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
)
_SYSTEM_HARDENING = (
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "ProtectControlGroups=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectClock=yes",
    "CapabilityBoundingSet=",
)


def unit_file(spec: ServiceSpec) -> Path:
    """Return ``/etc/systemd/system/NAME.service``, or its counterpart in the user's folder."""
    folder = spec.root / "etc/systemd/system" if spec.system else spec.user_config / "systemd/user"
    return folder / f"{spec.name}.service"


def render(spec: ServiceSpec) -> str:
    """Return the unit. It restarts after every exit but code 2, which means invalid settings."""
    sections = {
        "Unit": [
            "Description=nearfar, an embedding and rerank server",
            *(["Wants=network-online.target", "After=network-online.target"] if spec.system else []),
            "StartLimitIntervalSec=120",
            "StartLimitBurst=5",
        ],
        "Service": [
            "Type=notify",  # started once the models are open; see process/notify.py
            "TimeoutStartSec=infinity",  # a model may be downloaded first
            f"ExecStart={' '.join(_word(word) for word in spec.command)}",
            f"EnvironmentFile=-{_path(spec.environment)}",
            f"WorkingDirectory={_path(spec.config.parent) if spec.config else '-%h' if not spec.system else '/'}",
            "KillSignal=SIGTERM",
            "KillMode=mixed",
            f"TimeoutStopSec={spec.stop_s}",
            "ExecReload=/bin/kill -HUP $MAINPID",
            "Restart=always",  # not after systemctl stop
            "RestartSec=2",
            "RestartPreventExitStatus=2",
            f"LimitNOFILE={OPEN_FILES}",
            "UMask=0077",
            *_HARDENING,
            *(_system_lines(spec) if spec.system else ["ProtectSystem=full"]),
        ],
        "Install": [f"WantedBy={'multi-user' if spec.system else 'default'}.target"],
    }
    body = "\n\n".join("\n".join([f"[{name}]", *lines]) for name, lines in sections.items())
    return f"# {MARK}\n{body}\n"


def _system_lines(spec: ServiceSpec) -> list[str]:
    """Return the lines of a system service: a user without rights, which can write to one cache folder only."""
    user = [f"User={spec.run_as}"] if spec.run_as else ["DynamicUser=yes"]
    cache = f"/var/cache/{spec.name}"
    homes = {"HF_HOME": f"{cache}/huggingface", "NEARFAR_CACHE_DIR": f"{cache}/converted", "HOME": cache}
    environment = [f"Environment={name}={folder}" for name, folder in homes.items()]
    return [*user, f"CacheDirectory={spec.name}", *environment, *_SYSTEM_HARDENING]


def before_start(spec: ServiceSpec) -> list[list[str]]:  # noqa: ARG001 — only launchd needs it
    """Return no command."""
    return []


def start(spec: ServiceSpec) -> list[list[str]]:
    """Return commands that read the unit, enable it, and restart it."""
    unit = f"{spec.name}.service"
    return [[*_systemctl(spec), "daemon-reload"], [*_systemctl(spec), "enable", unit], _restart(spec)]


def stop(spec: ServiceSpec) -> list[list[str]]:
    """Return the command that stops and disables it."""
    return [[*_systemctl(spec), "disable", "--now", f"{spec.name}.service"]]


def after_removal(spec: ServiceSpec) -> list[list[str]]:
    """Return the command that makes systemd forget the unit."""
    return [[*_systemctl(spec), "daemon-reload"]]


def status(spec: ServiceSpec) -> list[str]:
    """Return the command that shows its state and its last log lines."""
    return [*_systemctl(spec), "--no-pager", "status", f"{spec.name}.service"]


def logs(spec: ServiceSpec, lines: int, *, follow: bool) -> list[str]:
    """Return the command that shows the last lines of the journal."""
    unit = "--unit" if spec.system else "--user-unit"
    more = ["--follow"] if follow else ["--no-pager"]
    return ["journalctl", unit, f"{spec.name}.service", "--lines", str(lines), "--output", "cat", *more]


def _restart(spec: ServiceSpec) -> list[str]:
    return [*_systemctl(spec), "restart", f"{spec.name}.service"]


def _systemctl(spec: ServiceSpec) -> list[str]:
    return ["systemctl"] if spec.system else ["systemctl", "--user"]


def _word(word: str) -> str:
    """Quote a word of a command line for systemd."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != word or " " in word or "'" in word or ";" in word else word


def _path(path: Path) -> str:
    return str(path).replace("%", "%%")
