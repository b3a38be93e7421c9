"""The process that computes a reference, and what it answers."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

from nearfar.serving.verification.reference import Answer, Task

_TIMEOUT_S = 120.0


class ReferenceProcess:
    """Starts to compute a reference in another process. ``failure`` is a phrase once there is no answer."""

    def __init__(self, task: Task) -> None:
        self.failure = ""
        # Whether another start would fail in the same way.
        self.is_final = False
        self._answer: Answer | None = None
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="nearfar-", ignore_cleanup_errors=True)
            place = Path(self._folder.name)
            (place / "task.json").write_bytes(msgspec.json.encode(task, enc_hook=str))
            files = [str(place / name) for name in ("task.json", "answer.json")]
            command = [sys.executable, "-m", "nearfar.serving.verification.reference", *files]
            with (place / "log").open("wb") as log:
                self._process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 — our own program
        except OSError as error:
            self.failure = f"no process could be started for the reference ({error.strerror})"

    def wait(self) -> Answer | None:
        """Wait for the end of the process; return its answer, the same at each call."""
        if self._answer or self.failure or self._process is None:
            return self._answer
        try:
            code = self._process.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.failure = f"the reference took over {_TIMEOUT_S:g} s"
        else:
            self._read(code)
        self.close()
        return self._answer

    def close(self) -> None:
        """End the process if it still runs, and remove its files."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._folder.cleanup()

    def _read(self, code: int) -> None:
        place = Path(self._folder.name)
        if not (place / "answer.json").is_file():
            self.is_final = code > 0  # not killed
            lines = (place / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            self.failure = f"the library can't load it ({lines[-1][:200] if lines else f'it ended with {code}'})"
            return
        answer = msgspec.json.decode((place / "answer.json").read_bytes(), type=Answer)
        if answer.numbers.count(None) * 2 > len(answer.numbers):
            self.is_final = True
            self.failure = f"{answer.library} can't compute most of the samples"
            return
        self._answer = answer
