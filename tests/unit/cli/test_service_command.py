"""``nearfar service`` with service managers that only write down what they were told."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

MANAGERS = {"systemd": ["systemctl", "journalctl"], "launchd": ["launchctl", "tail"]}


class Desk:
    """A user's home, and a PATH with programs that note how they were called and end with ``code``."""

    def __init__(self, folder: Path, manager: str) -> None:
        self.manager = manager
        self.home = folder / "home"
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.calls = folder / "calls"
        self.variables: dict[str, str] = {}
        for program in MANAGERS[manager]:
            self.put(program)

    def put(self, program: str, code: int = 0, says: str = "") -> None:
        file = self.programs / program
        file.write_text(f'#!/bin/sh\necho "{program} $*" >> {self.calls}\necho "{says}" >&2\nexit {code}\n')
        file.chmod(0o755)

    def service(self, *arguments: str) -> tuple[int, str]:
        at = 1 if arguments[0] in {"install", "uninstall", "status", "logs"} else 0
        command = [sys.executable, "-m", "nearfar", "service", *arguments[:at], "--manager", self.manager]
        environment = {"PATH": str(self.programs), "HOME": str(self.home), **self.variables}
        ended = subprocess.run(
            [*command, *arguments[at:]], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert "Traceback" not in ended.stderr
        return ended.returncode, ended.stdout + ended.stderr

    @property
    def told(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    @property
    def unit(self) -> Path:
        place = {"systemd": ".config/systemd/user/nearfar.service", "launchd": "Library/LaunchAgents/nearfar.plist"}
        return self.home / place[self.manager]

    @property
    def environment(self) -> Path:
        return next(self.home.rglob("nearfar.env"))


@pytest.fixture(params=MANAGERS)
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Desk:
    return Desk(tmp_path, request.param)


@pytest.fixture
def systemd(tmp_path: Path) -> Desk:
    return Desk(tmp_path, "systemd")


def test_installing_writes_a_unit_and_starts_it(desk: Desk) -> None:
    code, output = desk.service("install")

    assert 0 == code, output
    assert sys.executable in desk.unit.read_text()
    last = {"systemd": "systemctl --user restart nearfar.service", "launchd": "launchctl bootstrap gui/"}
    assert desk.told[-1].startswith(last[desk.manager])
    assert f"wrote    {desk.unit}" in output
    assert "undo     nearfar service uninstall\n" in output


def test_a_key_goes_into_a_file_of_its_owner_alone_and_never_into_the_unit(desk: Desk) -> None:
    desk.variables = {"NEARFAR_API_KEY": "sk-secret", "NEARFAR_HOST": "0.0.0.0"}  # noqa: S104 — nothing listens

    code, output = desk.service("install")

    assert 0 == code, output
    assert "sk-secret" not in desk.unit.read_text() + output + "".join(desk.told)
    assert 'NEARFAR_API_KEY="sk-secret"' in desk.environment.read_text()
    assert 0o600 == desk.environment.stat().st_mode & 0o777


def test_installing_again_renews_the_unit_and_keeps_the_variables(desk: Desk) -> None:
    desk.variables = {"NEARFAR_API_KEY": "sk-first"}
    desk.service("install")
    desk.variables = {"NEARFAR_API_KEY": "sk-second"}
    config = desk.home / "nearfar.toml"
    config.write_text("drain_timeout_s = 100\n")

    code, output = desk.service("install", "--config", str(config))

    assert 0 == code, output
    assert str(config) in desk.unit.read_text()
    assert "115" in desk.unit.read_text()
    assert "sk-first" in desk.environment.read_text()
    assert f"kept     {desk.environment}" in output


def test_only_printing_changes_nothing(desk: Desk) -> None:
    code, output = desk.service("install", "--print")

    assert 0 == code
    assert "Written by: nearfar service install" in output
    assert ([], False) == (desk.told, desk.home.exists())


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_a_unit_of_somebody_elses_is_left_alone_without_force(desk: Desk, command: str) -> None:
    desk.unit.parent.mkdir(parents=True)
    desk.unit.write_text("theirs")

    code, output = desk.service(command)
    forced, _ = desk.service(command, "--force")

    assert 1 == code
    assert f"{desk.unit} was not written by nearfar" in output
    assert 0 == forced
    assert not desk.unit.exists() or "theirs" not in desk.unit.read_text()


def test_uninstalling_stops_the_service_and_removes_its_unit(desk: Desk) -> None:
    desk.service("install")

    code, output = desk.service("uninstall")

    assert 0 == code, output
    assert not desk.unit.exists()
    said = {"systemd": "systemctl --user disable --now nearfar.service", "launchd": "launchctl bootout gui/"}
    assert any(call.startswith(said[desk.manager]) for call in desk.told)
    assert f"kept     {desk.environment}" in output
    assert 1 == desk.service("uninstall")[0]


def test_status_ends_as_the_managers_own_command_does(desk: Desk) -> None:
    desk.put(MANAGERS[desk.manager][0], code=3)

    code, _ = desk.service("status")

    assert 3 == code
    said = {"systemd": "systemctl --user --no-pager status nearfar.service", "launchd": "launchctl print gui/"}
    assert desk.told[0].startswith(said[desk.manager])


def test_logs_are_those_of_the_manager(desk: Desk) -> None:
    code, _ = desk.service("logs", "--lines", "7", "--follow")

    assert 0 == code
    assert {
        "systemd": ["journalctl --user-unit nearfar.service --lines 7 --output cat --follow"],
        "launchd": [f"tail -n 7 -F {desk.home}/Library/Logs/nearfar.log"],
    }[desk.manager] == desk.told


def test_a_service_of_the_whole_system_goes_to_its_places(systemd: Desk, tmp_path: Path) -> None:
    root = tmp_path / "root"

    code, output = systemd.service("install", "--system", "--run-as", "nobody", "--root", str(root), "--name", "two")

    assert 0 == code, output
    assert "User=nobody" in (root / "etc/systemd/system/two.service").read_text()
    assert (root / "etc/nearfar/two.env").exists()
    assert "systemctl restart two.service" == systemd.told[-1]
    assert "undo     nearfar service uninstall --system --name two\n" in output


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--config", "nowhere.toml"], 1, "nowhere.toml: can't be read"),
        (["--name", "../../evil"], 2, "letters, digits"),
        (["--run-as", "nobody"], 2, "--run-as is for --system"),
    ],
)
def test_what_could_not_run_is_refused_before_anything_is_written(
    systemd: Desk, arguments: list[str], code: int, says: str
) -> None:
    ended, output = systemd.service("install", *arguments)

    assert (code, True) == (ended, says in output), output
    assert ([], False) == (systemd.told, systemd.home.exists())


def test_an_interpreter_that_others_cannot_reach_is_refused_for_a_user_made_by_systemd(
    systemd: Desk, tmp_path: Path
) -> None:
    """The test's own folder is its user's alone, as a home often is."""
    config = tmp_path / "nearfar.toml"
    config.write_text("")
    tmp_path.chmod(0o700)

    code, output = systemd.service("install", "--system", "--root", str(tmp_path / "root"), "--config", str(config))

    assert 1 == code
    assert "is out of reach for a user made for the service" in output
    assert [] == systemd.told


def test_what_the_manager_complains_of_is_passed_on(systemd: Desk) -> None:
    systemd.put("systemctl", code=1, says="Failed to connect to bus")

    code, output = systemd.service("install")

    assert 1 == code
    assert "daemon-reload: failed with 1: Failed to connect to bus" in output


def test_a_manager_that_is_not_there_is_named(systemd: Desk) -> None:
    (systemd.programs / "systemctl").unlink()

    code, output = systemd.service("install")

    assert 1 == code
    assert "systemctl isn't on this machine's PATH" in output
