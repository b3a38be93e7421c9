"""State reports to systemd (``Type=notify``), with a socket of the test in systemd's place."""

from __future__ import annotations

import re
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

import pytest
from server_process import ServerProcess, until

from nearfar.process.notify import Notifier

if TYPE_CHECKING:
    from pathlib import Path


def test_start_reload_failed_reload_and_stop_are_reported(systemd: socket.socket, tmp_path: Path) -> None:
    settings = tmp_path / "nearfar.toml"
    settings.write_text('engine = "fake"\n')
    began = time.monotonic_ns() // 1000

    with ServerProcess("--config", str(settings), NOTIFY_SOCKET=systemd.getsockname()) as server:
        reports = [systemd.recv(4096).decode() for _ in range(2)]
        server.process.send_signal(signal.SIGHUP)
        reports += [systemd.recv(4096).decode() for _ in range(2)]
        until(lambda: len(server.workers()) == 1)
        settings.write_text("engine = ")
        server.process.send_signal(signal.SIGHUP)
        reports += [systemd.recv(4096).decode() for _ in range(2)]
        server.process.send_signal(signal.SIGTERM)
        reports.append(systemd.recv(4096).decode())
        assert 0 == server.wait()

    clocks = [int(clock) for clock in re.findall(r"MONOTONIC_USEC=(\d+)\n", "".join(reports))]
    assert began < clocks[0] < clocks[1] < time.monotonic_ns() // 1000
    ready, reloading = (
        "READY=1\nSTATUS=serving\n",
        "RELOADING=1\nSTATUS=reloading: a new worker is loading its models\n",
    )
    stopping = "STOPPING=1\nSTATUS=shutting down: waiting for requests in flight\n"
    assert ["STATUS=loading models\n", ready, reloading, ready, reloading, ready, stopping] == [
        re.sub(r"MONOTONIC_USEC=\d+\n", "", report) for report in reports
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract socket names")
def test_an_abstract_address_is_understood() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0nearfar-test-{time.monotonic_ns()}")
        receiver.settimeout(10)

        Notifier("@" + receiver.getsockname()[1:].decode()).report("ready", "serving")

        assert b"READY=1\nSTATUS=serving\n" == receiver.recv(4096)


def test_without_systemd_or_its_socket_nothing_is_sent_and_nothing_fails(tmp_path: Path) -> None:
    Notifier(None).report("ready", "serving")
    Notifier(str(tmp_path / "nowhere")).report("ready", "serving")
