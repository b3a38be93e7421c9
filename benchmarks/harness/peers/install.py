"""Install the peers, each in a virtual environment below .peers/, and check that they start."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from harness.launcher import Server, StartError
from harness.peers.servers import PEERS_DIR, Patch, Peer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_EXPORT = ("export", "onnx", "--task", "feature-extraction", "--framework", "pt", "--library", "transformers")


class InstallError(Exception):
    """A peer couldn't be installed or patched."""


def install_all(peers: Sequence[Peer], torch: str, model: str) -> None:
    """Install the peers and print whether each starts.

    ``torch`` is installed first, because pip would choose the CUDA build. .peers/ gets a .gitignore for all of it.
    """
    PEERS_DIR.mkdir(exist_ok=True)
    (PEERS_DIR / ".gitignore").write_text("*\n")
    for venv in dict.fromkeys(peer.venv for peer in peers):
        sharing = [peer for peer in peers if peer.venv == venv]
        try:
            _install(venv, sharing, torch, model)
        except (InstallError, subprocess.CalledProcessError) as error:
            print(f"{venv}: not installed: {error}", flush=True)
            continue
        for peer in sharing:
            print(f"{peer.name}: {_try_to_start(peer, model)}", flush=True)


def _install(venv: str, peers: Sequence[Peer], torch: str, model: str) -> None:
    """Create one virtual environment for all peers that share it, replacing an older one."""
    print(f"{venv}: installing", flush=True)
    _run(sys.executable, "-m", "venv", "--clear", str(PEERS_DIR / venv))
    first = peers[0]
    pip = (str(first.bin / "python"), "-m", "pip", "install", "--quiet")
    _run(*pip, torch)
    _run(*pip, torch, *first.requirements)
    if first.without_dependencies:
        _run(*pip, "--no-deps", "--ignore-requires-python", *first.without_dependencies)
    packages = next((PEERS_DIR / venv).glob("lib/python*/site-packages"))
    for peer in peers:
        for patch in peer.patches:
            _apply(patch, packages)
        if peer.needs_onnx:
            shutil.rmtree(peer.onnx, ignore_errors=True)
            _run(str(peer.bin / "optimum-cli"), *_EXPORT, "--model", model, str(peer.onnx))


def _apply(patch: Patch, packages: Path) -> None:
    path = packages / patch.file
    text = path.read_text()
    if patch.old not in text:
        raise InstallError(f"{patch.file} has no {patch.old.strip()!r}; is it fixed upstream? ({patch.why})")
    path.write_text(text.replace(patch.old, patch.new))
    print(f"patched {patch.file}: {patch.why}", flush=True)


def _try_to_start(peer: Peer, model: str) -> str:
    """Start the peer once, so that its disk caches exist when start times are measured."""
    try:
        with Server(peer.launch_spec(model), PEERS_DIR / f"{peer.name}.log") as server:
            return f"starts, {server.start_s:.1f} s to the first vector"
    except StartError as error:
        return f"installed, but it {error}"


def _run(*command: str) -> None:
    subprocess.run(command, check=True)  # noqa: S603 — this file's own commands
