"""What a worker serves with reaches the next one unchanged."""

from __future__ import annotations

import math

from settings_fields import FIELDS

from nearfar import ModelSettings, Settings
from nearfar.http.gate.keys import KeyEntry, hash_key
from nearfar.process.channel import WorkerConfig


def test_every_setting_key_and_certificate_survives_the_message() -> None:
    values = {field: expected for field, (*_, expected) in FIELDS.items()}
    settings = Settings(**values, models=(ModelSettings(name="a\nb", prompts={"query": "q: "}),))  # type: ignore[arg-type]
    keys = (KeyEntry(name="first", sha256=hash_key("x"), scopes=("admin",), tokens_per_minute=5),)
    served = WorkerConfig(settings=settings, keys=keys, certificate=(b"\x00\n\xff", b"key"))

    line = served.to_line()

    assert served == WorkerConfig.from_line(line)
    assert line.find(b"\n") == len(line) - 1


def test_an_infinite_timeout_survives_the_message() -> None:
    served = WorkerConfig(settings=Settings(heartbeat_timeout_s=math.inf, forward_timeout_s=math.inf))

    assert served == WorkerConfig.from_line(served.to_line())
