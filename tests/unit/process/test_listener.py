"""The listening socket: what can't be listened on is one sentence with the way out."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from nearfar.core.errors import SettingsError
from nearfar.process.listener import open_listener, open_listeners

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


ADDRESSES = {
    "127.0.0.1": ["127.0.0.1", "::1"],
    "localhost": ["127.0.0.1", "::1"],
    "::1": ["::1"],
    "0.0.0.0": ["0.0.0.0"],  # noqa: S104 — closed at once
    "127.0.0.2": ["127.0.0.2"],
}


@pytest.mark.parametrize("host", ADDRESSES)
def test_the_loopback_of_ipv4_includes_that_of_ipv6(host: str) -> None:
    with ExitStack() as stack:
        listeners = [stack.enter_context(listener) for listener in open_listeners(host, 0)]

        assert ADDRESSES[host] == [listener.getsockname()[0] for listener in listeners]
        assert 1 == len({listener.getsockname()[1] for listener in listeners})


def test_another_program_on_the_loopback_of_ipv6_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]

        (listener,) = open_listeners("127.0.0.1", port)

    listener.close()
    assert [f"another program listens on [::1]:{port}: clients may reach it at localhost:{port}"] == caplog.messages
