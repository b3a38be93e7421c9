"""The compatibility fixtures agree exactly with a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import replay

if TYPE_CHECKING:
    import pytest
    from server_process import ServerProcess


def test_the_cases_agree_exactly_with_a_real_server(server: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    parts = ["openai", "cohere/rerank_v2"]

    code = replay.main(["--url", server.url, "--exact", "--only", *parts])

    printed = capsys.readouterr().out
    assert 0 == code, printed
    assert "openai/embeddings" in printed
    assert "Not run" in printed  # cases that need other settings
