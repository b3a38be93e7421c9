"""Units as systemd and launchd read them."""

from __future__ import annotations

import plistlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from nearfar.cli.units import launchd, systemd
from nearfar.cli.units.install import read_variables, write_variables
from nearfar.cli.units.spec import ServiceSpec
from nearfar.core.errors import ServiceManagerError, SettingsError

if TYPE_CHECKING:
    from typing import Any

KEY = 'sk-$HOME`id`"quoted"\\\'%n'


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment["PATH"] = "/usr/bin:/bin"
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def spec_in(folder: Path, **changes: Any) -> ServiceSpec:
    spec = ServiceSpec(
        name="nearfar",
        python=Path(sys.executable),
        config=None,
        environment=folder / "nearfar.env",
        drain_timeout_s=30,
        uid=501,
        root=folder / "root",
        home=folder / "home",
        user_config=folder / "home/.config",
    )
    return msgspec.structs.replace(spec, **changes)


CONFIG = {"config": Path('/srv/100 %/$HOME/it\'s "mine".toml')}
SYSTEM = {"system": True}
RUN_AS = {"system": True, "run_as": "daemon"}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, f"ExecStart={sys.executable} -m nearfar serve --log-format json"),
        ({}, "WantedBy=default.target"),
        ({}, "Type=notify"),
        ({}, "TimeoutStartSec=infinity"),
        ({}, "Restart=always"),
        ({}, "ExecReload=/bin/kill -HUP $MAINPID"),
        ({}, "KillSignal=SIGTERM"),
        ({}, "NoNewPrivileges=yes"),
        ({}, "LimitNOFILE=65536"),
        ({}, "TimeoutStopSec=45"),
        ({}, "ProtectSystem=full"),
        ({"drain_timeout_s": 600.0}, "TimeoutStopSec=615"),
        (CONFIG, r"WorkingDirectory=/srv/100 %%/$HOME"),
        (SYSTEM, "WantedBy=multi-user.target"),
        (SYSTEM, "DynamicUser=yes"),
        (SYSTEM, "ProtectSystem=strict"),
        (SYSTEM, "CacheDirectory=nearfar"),
        (SYSTEM, "Environment=NEARFAR_CACHE_DIR=/var/cache/nearfar/converted"),
        (RUN_AS, "User=daemon"),
    ],
)
def test_a_systemd_unit_has(changes: dict[str, Any], line: str, tmp_path: Path) -> None:
    assert line in systemd.render(spec_in(tmp_path, **changes)).splitlines()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze isn't installed")
@pytest.mark.parametrize("changes", [{}, CONFIG, SYSTEM, RUN_AS, {"name": "second.one"}], ids=str)
def test_systemd_accepts_a_unit(changes: dict[str, Any], tmp_path: Path) -> None:
    spec = spec_in(tmp_path, **changes)
    unit = tmp_path / f"{spec.name}.service"
    unit.write_text(systemd.render(spec))
    mode = [] if spec.system else ["--user"]

    ended = run("systemd-analyze", "verify", *mode, str(unit), XDG_RUNTIME_DIR=str(tmp_path))

    assert (0, "") == (ended.returncode, ended.stdout + ended.stderr)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze isn't installed")
def test_systemd_refuses_an_unknown_line(tmp_path: Path) -> None:
    """Otherwise the test above could pass with a command that checks nothing."""
    unit = tmp_path / "nearfar.service"
    unit.write_text(systemd.render(spec_in(tmp_path)).replace("UMask=", "UMaks="))

    ended = run("systemd-analyze", "verify", str(unit))

    assert "UMaks" in ended.stderr


@pytest.mark.parametrize(
    ("changes", "key", "value"),
    [
        ({}, "Label", "nearfar"),
        ({}, "KeepAlive", True),
        ({}, "ExitTimeOut", 45),
        ({}, "SoftResourceLimits", {"NumberOfFiles": 65536}),
        (CONFIG, "WorkingDirectory", "/srv/100 %/$HOME"),
        (RUN_AS, "UserName", "daemon"),
    ],
)
def test_a_property_list_has(changes: dict[str, Any], key: str, value: object, tmp_path: Path) -> None:
    unit = plistlib.loads(launchd.render(spec_in(tmp_path, **changes)).encode())

    assert value == unit[key]


def test_launchd_runs_the_command_with_the_variables_of_its_file(tmp_path: Path) -> None:
    """Run the command line as launchd would, with another program in nearfar's place."""
    spec = spec_in(tmp_path, **CONFIG)
    write_variables(spec.environment, {"NEARFAR_API_KEY": KEY})
    arguments = plistlib.loads(launchd.render(spec).encode())["ProgramArguments"]
    arguments[5:7] = ["-c", "import os, sys; print(os.environ['NEARFAR_API_KEY'], *sys.argv[1:], sep='\\n')"]

    ended = run(*arguments)

    assert [KEY, "serve", "--config", str(CONFIG["config"]), "--log-format", "json"] == ended.stdout.splitlines()


@pytest.mark.parametrize("system", [False, True])
def test_a_unit_is_where_its_manager_expects_it(tmp_path: Path, *, system: bool) -> None:
    spec = spec_in(tmp_path, system=system)

    found = [str(manager.unit_file(spec).relative_to(tmp_path)) for manager in (systemd, launchd)]

    assert found == (
        ["root/etc/systemd/system/nearfar.service", "root/Library/LaunchDaemons/nearfar.plist"]
        if system
        else ["home/.config/systemd/user/nearfar.service", "home/Library/LaunchAgents/nearfar.plist"]
    )


def test_variables_are_read_back_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    file = tmp_path / "new" / "nearfar.env"

    write_variables(file, {"NEARFAR_API_KEY": KEY, "NEARFAR_PORT": "9001"})

    assert {"NEARFAR_API_KEY": KEY, "NEARFAR_PORT": "9001"} == read_variables(file)
    assert 0o600 == file.stat().st_mode & 0o777


@pytest.mark.parametrize(
    ("line", "variables"),
    [
        ("A=b", {"A": "b"}),
        ("A='b c'", {"A": "b c"}),
        ('  A="b \\"c\\""  ', {"A": 'b "c"'}),
        ("A=", {"A": ""}),
        ("# A=b", {}),
        ("", {}),
    ],
)
def test_a_line_written_by_hand_is_read_as_systemd_reads_it(
    line: str, variables: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "nearfar.env"
    file.touch(mode=0o600)
    file.write_text(line)

    assert variables == read_variables(file)


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [("export A=b\n", 0o600, 'line 1 is not NAME="value"'), ("A=b\n", 0o640, "others can read it")],
)
def test_an_unusable_file_of_variables_is_refused(text: str, mode: int, message: str, tmp_path: Path) -> None:
    file = tmp_path / "nearfar.env"
    file.write_text(text)
    file.chmod(mode)

    with pytest.raises(SettingsError, match=message):
        read_variables(file)


EVIL = [
    "a\\/b",
    "a /b",
    "a\udcffb",
    "a\x85b",
    "a\ufffeb",
    "a\nExecStartPre=/bin/sh",
    "a\r",
    "a\\",
    "a ",
    "a\0",
    "a\x1b[0m",
    "a\u2028b",
    "a\x7f",
]


@pytest.mark.parametrize("text", EVIL)
@pytest.mark.parametrize("field", ["config", "python", "environment", "root", "home", "user_config", "run_as", "name"])
def test_what_a_unit_can_not_have_as_it_is_is_refused(field: str, text: str, tmp_path: Path) -> None:
    value = text if field in {"run_as", "name"} else Path("/srv") / text

    with pytest.raises((ServiceManagerError, msgspec.ValidationError)):
        msgspec.convert(msgspec.structs.asdict(spec_in(tmp_path)) | {field: value, "system": True}, ServiceSpec)


@pytest.mark.parametrize("name", ["nearfar\n", "near\nfar", ""])
def test_a_name_of_a_service_has_no_line_break(name: str, tmp_path: Path) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(msgspec.structs.asdict(spec_in(tmp_path)) | {"name": name}, ServiceSpec)


@pytest.mark.parametrize("user", ["root\n", "a b", "%u", "$USER", "-x", ""])
def test_a_user_has_a_plain_name(user: str, tmp_path: Path) -> None:
    with pytest.raises(ServiceManagerError, match="--run-as"):
        spec_in(tmp_path, system=True, run_as=user)


def test_a_folder_that_systemd_would_take_as_a_pattern_is_refused(tmp_path: Path) -> None:
    for name in ("[a]", "a*", "a?", "a\\b"):
        with pytest.raises(ServiceManagerError, match="pattern"):
            spec_in(tmp_path, environment=tmp_path / name / "nearfar.env")


ODD = ["a b", "a%h", "a%%b", "a;b", ";", "#a", "é", "a{b", "a*b", "~", "&&", "=", "@a", "a:b"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze isn't installed")
@pytest.mark.parametrize("name", [*ODD, "a'b", 'a"b', "a$b", "a${HOME}b", "a\\b"])
def test_systemd_finds_the_interpreter_wherever_it_is_or_its_path_is_refused(name: str, tmp_path: Path) -> None:
    python, unit = tmp_path / name / "python", tmp_path / "nearfar.service"
    python.parent.mkdir()
    python.touch(mode=0o755)
    if name not in ODD:
        with pytest.raises(ServiceManagerError, match="can't run a program"):
            spec_in(tmp_path, python=python)
        return
    unit.write_text(systemd.render(spec_in(tmp_path, python=python)))

    ended = run("systemd-analyze", "verify", "--user", str(unit), XDG_RUNTIME_DIR=str(tmp_path))

    assert (0, "") == (ended.returncode, ended.stdout + ended.stderr)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NEARFAR_API_KEY", 'a"\nNEARFAR_NO_AUTH="1'),
        ("NEARFAR_API_KEY", "a\rb"),
        ("NEARFAR_API_KEY", "a\0b"),
        ("NEARFAR_API_KEY", "a\udcffb"),
        ("NEARFAR_API_KEY", "a\ufdd0b"),
        ("NEARFAR_API_KEY", "a\ufffeb"),
        ("NEARFAR_API_KEY", "a\U0001ffffb"),
        ("HF_A\nNEARFAR_NO_AUTH", "1"),
        ("HF_é", "1"),
    ],
)
def test_variables_that_would_not_be_read_back_are_refused(name: str, value: str, tmp_path: Path) -> None:
    file = tmp_path / "nearfar.env"

    with pytest.raises(ServiceManagerError):
        write_variables(file, {name: value})

    assert not file.exists()


@pytest.mark.parametrize("value", ["a\\", "\\", "a\\\\", "'", '"', "a\u2028b", "a\x85b", "$(id)", "`id`", "%h", " a "])
def test_any_other_value_is_read_back_and_the_shell_reads_the_same(value: str, tmp_path: Path) -> None:
    file = tmp_path / "nearfar.env"

    write_variables(file, {"NEARFAR_A": value, "NEARFAR_B": "b"})

    assert {"NEARFAR_A": value, "NEARFAR_B": "b"} == read_variables(file)
    ended = run("/bin/sh", "-c", f'. {file}; printf "%s|%s" "$NEARFAR_A" "$NEARFAR_B"')
    assert f"{value}|b" == ended.stdout
