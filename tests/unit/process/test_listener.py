"""The listening socket: what can't be listened on is one sentence with the way out."""

from __future__ import annotations

import socket
import sys

import pytest

from nearfar.core.errors import SettingsError
from nearfar.process.listener import open_listener

REMEDIES = {
    "192.0.2.1": "Cannot assign requested address; this machine doesn't have the address: use --host 127.0.0.1",
    "no-such-host.invalid": "",  # the system's own words
    "a" * 64 + ".example": "",
    "999.1.1.1": "",
}


@pytest.mark.parametrize("host", REMEDIES)
def test_a_host_that_this_machine_does_not_have_is_named(host: str) -> None:
    with pytest.raises(SettingsError) as refused:
        open_listener(host, 0)

    assert str(refused.value).startswith(f"can't listen on {host}:0: ")
    assert REMEDIES[host] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_taken_port_is_answered_with_the_way_out() -> None:
    with open_listener("127.0.0.1", 0) as first:
        port = first.getsockname()[1]

        with pytest.raises(SettingsError, match="another program listens there: stop it, or use --port with another"):
            open_listener("127.0.0.1", port)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds a socket to a device")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_loopback_is_both_of_its_addresses_and_no_other(host: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.99", 9))  # sends nothing, but chooses this machine's own address
        own = probe.getsockname()[0]

    with open_listener(host, 0) as listener:
        port = listener.getsockname()[1]

        reached = [address for address in ("127.0.0.1", "::1", own) if _connects(address, port)]

    assert ["127.0.0.1", "::1"] == reached


def _connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 2).close()
    except OSError:
        return False
    return True


def test_ipv4_is_enough_where_another_program_has_the_port_of_ipv6() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]

        with open_listener("127.0.0.1", port) as listener:
            assert ("127.0.0.1", port) == listener.getsockname()
