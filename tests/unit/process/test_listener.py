"""The listening socket: what can't be listened on is one sentence with the way out."""

from __future__ import annotations

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
