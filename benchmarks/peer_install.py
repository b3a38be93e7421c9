"""Install the peers, each into a virtual environment of its own below .peers/, and prove that it starts.

.peers/ holds a .gitignore that leaves all of it out.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from launch import Server, StartError
from peer_table import PEERS, Patch, Peer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_EXPORT = ("export", "onnx", "--task", "feature-extraction", "--framework", "pt", "--library", "transformers")


class InstallError(Exception):
    """A peer couldn't be installed, mended or started."""


def install_all(peers: Sequence[Peer], torch: str, model: str) -> None:
    """Install the peers, and say of each whether it starts. ``torch`` goes first: what pip would take is CUDA's."""
    PEERS.mkdir(exist_ok=True)
    (PEERS / ".gitignore").write_text("*\n")
    for venv in dict.fromkeys(peer.venv for peer in peers):
        sharing = [peer for peer in peers if peer.venv == venv]
        try:
            _install(venv, sharing, torch, model)
        except (InstallError, subprocess.CalledProcessError) as error:
            print(f"{venv}: not installed: {error}", flush=True)
            continue
        for peer in sharing:
            print(f"{peer.name}: {_try(peer, model)}", flush=True)


def _install(venv: str, peers: Sequence[Peer], torch: str, model: str) -> None:
    """Make one virtual environment anew, for all the peers that share it."""
    print(f"{venv}: installing", flush=True)
    _run(sys.executable, "-m", "venv", "--clear", str(PEERS / venv))
    first = peers[0]
    pip = (str(first.bin / "python"), "-m", "pip", "install", "--quiet")
    _run(*pip, torch)
    _run(*pip, torch, *first.requirements)
    if first.without_dependencies:
        _run(*pip, "--no-deps", "--ignore-requires-python", *first.without_dependencies)
    packages = next((PEERS / venv).glob("lib/python*/site-packages"))
    for peer in peers:
        for patch in peer.patches:
            _mend(packages, patch)
        if peer.needs_onnx:
            shutil.rmtree(peer.onnx, ignore_errors=True)
            _run(str(peer.bin / "optimum-cli"), *_EXPORT, "--model", model, str(peer.onnx))


def _mend(packages: Path, patch: Patch) -> None:
    path = packages / patch.file
    text = path.read_text()
    if patch.old not in text:
        raise InstallError(f"{patch.file} no longer holds {patch.old.strip()!r}; is it mended? ({patch.why})")
    path.write_text(text.replace(patch.old, patch.new))
    print(f"mended {patch.file}: {patch.why}", flush=True)


def _try(peer: Peer, model: str) -> str:
    """Start it once, so that what it caches on disk at its first start is there when starts are measured."""
    try:
        with Server(peer.recipe(model), PEERS / f"{peer.name}.log") as server:
            return f"starts, {server.start_s:.1f} s to the first vector"
    except StartError as error:
        return f"installed, but {error}"


def _run(*command: str) -> None:
    subprocess.run(command, check=True)  # noqa: S603 — the commands of this file
