"""``nearfar service`` with service managers that only record their command lines."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from nearfar.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

MANAGERS = {"systemd": ["systemctl", "journalctl"], "launchd": ["launchctl", "tail"]}


class Machine:
    """A home folder, and a PATH with programs that record their arguments and exit with ``code``."""

    def __init__(self, folder: Path, manager: str) -> None:
        self.manager = manager
        self.home = folder / "home"
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.calls = folder / "calls"
        self.variables: dict[str, str] = {}
        for program in MANAGERS[manager]:
            self.add_program(program)

    def add_program(self, program: str, code: int = 0, message: str = "") -> None:
        file = self.programs / program
        file.write_text(f'#!/bin/sh\necho "{program} $*" >> {self.calls}\necho "{message}" >&2\nexit {code}\n')
        file.chmod(0o755)

    def service(self, *arguments: str) -> tuple[int, str]:
        at = 1 if arguments[0] in {"install", "uninstall", "status", "logs"} else 0
        command = ["service", *arguments[:at], "--manager", self.manager, *arguments[at:]]
        unset = dict.fromkeys(name for name in os.environ if name.startswith(("NEARFAR_", "XDG_")))
        environment = {**unset, "PATH": str(self.programs), "HOME": str(self.home), **self.variables}
        ended = CliRunner().invoke(main, command, env=environment)
        assert ended.exception is None or isinstance(ended.exception, SystemExit)
        return ended.exit_code, ended.output

    @property
    def commands(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    @property
    def unit(self) -> Path:
        place = {"systemd": ".config/systemd/user/nearfar.service", "launchd": "Library/LaunchAgents/nearfar.plist"}
        return self.home / place[self.manager]

    @property
    def environment(self) -> Path:
        return next(self.home.rglob("nearfar.env"))


@pytest.fixture(params=MANAGERS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(tmp_path, request.param)


@pytest.fixture
def systemd(tmp_path: Path) -> Machine:
    return Machine(tmp_path, "systemd")


def test_install_writes_a_unit_and_starts_it(machine: Machine) -> None:
    code, output = machine.service("install")

    assert 0 == code, output
    assert sys.executable in machine.unit.read_text()
    last = {"systemd": "systemctl --user restart nearfar.service", "launchd": "launchctl bootstrap gui/"}
    assert machine.commands[-1].startswith(last[machine.manager])
    assert f"wrote    {machine.unit}" in output
    assert "undo     nearfar service uninstall\n" in output


def test_a_key_goes_into_a_private_file_and_never_into_the_unit(machine: Machine) -> None:
    machine.variables = {"NEARFAR_API_KEY": "sk-secret", "NEARFAR_HOST": "0.0.0.0"}  # noqa: S104 — nothing listens

    code, output = machine.service("install")

    assert 0 == code, output
    assert "sk-secret" not in machine.unit.read_text() + output + "".join(machine.commands)
    assert 'NEARFAR_API_KEY="sk-secret"' in machine.environment.read_text()
    assert 0o600 == machine.environment.stat().st_mode & 0o777


NETWORK = {
    "HF_TOKEN": "hf_secret",
    "HF_HOME": "/data/hf",
    "HF_HUB_DISABLE_XET": "1",
    "HTTPS_PROXY": "http://user:pass@proxy:3128",
    "no_proxy": "localhost,.corp",
    "SSL_CERT_FILE": "/etc/ssl/corp.pem",
    "REQUESTS_CA_BUNDLE": "/etc/ssl/corp.pem",
}


def test_variables_for_downloads_are_kept_and_named_but_their_values_stay_private(machine: Machine) -> None:
    machine.variables = NETWORK | {"NEARFAR_PORT": "tcp://10.96.0.12:9000", "UNRELATED": "1"}

    code, output = machine.service("install")

    written = machine.environment.read_text()
    assert 0 == code, output
    assert [] == [name for name, value in NETWORK.items() if f'{name}="{value}"' not in written or name not in output]
    assert "hf_secret" not in machine.unit.read_text() + output
    assert "UNRELATED" not in written
    assert "NEARFAR_PORT" not in written  # Kubernetes' own


def test_installing_again_replaces_the_unit_and_keeps_the_variables(machine: Machine) -> None:
    machine.variables = {"NEARFAR_API_KEY": "sk-first"}
    machine.service("install")
    machine.variables = {"NEARFAR_API_KEY": "sk-second"}
    config = machine.home / "nearfar.toml"
    config.write_text("drain_timeout_s = 100\n")

    code, output = machine.service("install", "--config", str(config))

    assert 0 == code, output
    assert str(config) in machine.unit.read_text()
    assert "115" in machine.unit.read_text()
    assert "sk-first" in machine.environment.read_text()
    assert f"kept     {machine.environment}" in output


def test_print_changes_nothing(machine: Machine) -> None:
    code, output = machine.service("install", "--print")

    assert 0 == code
    assert "Written by: nearfar service install" in output
    assert ([], False) == (machine.commands, machine.home.exists())


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_a_unit_of_another_program_is_kept_without_force(machine: Machine, command: str) -> None:
    machine.unit.parent.mkdir(parents=True)
    machine.unit.write_text("theirs")

    code, output = machine.service(command)
    forced, _ = machine.service(command, "--force")

    assert 1 == code
    assert f"{machine.unit} was not written by nearfar" in output
    assert 0 == forced
    assert not machine.unit.exists() or "theirs" not in machine.unit.read_text()


def test_uninstall_stops_the_service_and_removes_its_unit(machine: Machine) -> None:
    machine.service("install")

    code, output = machine.service("uninstall")

    assert 0 == code, output
    assert not machine.unit.exists()
    expected = {"systemd": "systemctl --user disable --now nearfar.service", "launchd": "launchctl bootout gui/"}
    assert any(call.startswith(expected[machine.manager]) for call in machine.commands)
    assert f"kept     {machine.environment}" in output
    assert 1 == machine.service("uninstall")[0]


def test_status_has_the_exit_code_of_the_manager(machine: Machine) -> None:
    machine.add_program(MANAGERS[machine.manager][0], code=3)

    code, output = machine.service("status")

    assert 3 == code
    assert f"{machine.unit} doesn't exist: nearfar service install writes it" in output
    expected = {"systemd": "systemctl --user --no-pager status nearfar.service", "launchd": "launchctl print gui/"}
    assert machine.commands[0].startswith(expected[machine.manager])


def test_logs_runs_the_command_of_the_manager(machine: Machine) -> None:
    code, _ = machine.service("logs", "--lines", "7", "--follow")

    assert 0 == code
    assert {
        "systemd": ["journalctl --user-unit nearfar.service --lines 7 --output cat --follow"],
        "launchd": [f"tail -n 7 -F {machine.home}/Library/Logs/nearfar.log"],
    }[machine.manager] == machine.commands


def test_a_system_service_goes_to_the_system_folders(systemd: Machine, tmp_path: Path) -> None:
    root = tmp_path / "root"

    code, output = systemd.service("install", "--system", "--run-as", "nobody", "--root", str(root), "--name", "two")

    assert 0 == code, output
    assert "User=nobody" in (root / "etc/systemd/system/two.service").read_text()
    assert (root / "etc/nearfar/two.env").exists()
    assert "systemctl restart two.service" == systemd.commands[-1]
    assert "undo     nearfar service uninstall --system --name two\n" in output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--config", "nowhere.toml"], 1, "nowhere.toml: can't be read"),
        (["--name", "../../evil"], 2, "letters, digits"),
        (["--run-as", "nobody"], 2, "--run-as needs --system"),
    ],
)
def test_an_invalid_service_is_refused_before_anything_is_written(
    systemd: Machine, arguments: list[str], code: int, message: str
) -> None:
    ended, output = systemd.service("install", *arguments)

    assert (code, True) == (ended, message in output), output
    assert ([], False) == (systemd.commands, systemd.home.exists())


def test_an_interpreter_that_the_user_of_systemd_cannot_reach_is_refused(systemd: Machine, tmp_path: Path) -> None:
    """Other users can't enter the test's folder, like many a home."""
    config = tmp_path / "nearfar.toml"
    config.write_text("")
    tmp_path.chmod(0o700)

    code, output = systemd.service("install", "--system", "--root", str(tmp_path / "root"), "--config", str(config))

    assert 1 == code
    assert "can't be read by the user that systemd creates for the service" in output
    assert [] == systemd.commands


def test_an_error_of_the_manager_is_shown(systemd: Machine) -> None:
    systemd.add_program("systemctl", code=1, message="Failed to connect to bus")

    code, output = systemd.service("install")

    assert 1 == code
    assert "daemon-reload: failed with 1: Failed to connect to bus" in output


def test_a_missing_manager_is_named(systemd: Machine) -> None:
    (systemd.programs / "systemctl").unlink()

    code, output = systemd.service("install")

    assert 1 == code
    assert "systemctl isn't on this machine's PATH" in output
