"""What the command ``unpickle`` does: a folder's pickled weights written anew as safetensors, in a folder of its own.

torch reads them with ``weights_only``: it takes tensors out of a pickle and refuses everything that would run code.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from nearfar.core.errors import CheckpointError
from nearfar.engines.selection import choose_engines
from nearfar.models.hub.checkpoint import find_checkpoint
from nearfar.models.hub.download import Hub
from nearfar.models.reading.reader import read_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nearfar.core.settings import Settings

_PICKLES = (".bin", ".pt", ".pth")
_KEPT = (".json", ".txt", ".model", ".jinja", ".md", ".metadata")
_INDEX = "pytorch_model.bin.index.json"
_MB = 1_000_000


def unpickle_model(settings: Settings, out: Path | None) -> Iterator[str]:
    """Write the first model of the settings anew, and say in lines what was written.

    Raises CheckpointError where there is nothing pickled, something else than tensors is, or what comes of it can't be
    served; EngineUnavailable without torch.
    """
    choose_engines("torch", settings.device)
    hub = Hub(endpoint=settings.hub_endpoint, offline=settings.offline, include_pickles=True)
    checkpoint = find_checkpoint(settings.models[0].name, hub)
    source, target = checkpoint.folder, out or Path(f"{checkpoint.name.rpartition('/')[2]}-safetensors")
    files = [file for file in sorted(source.rglob("*")) if file.is_file()]
    pickles = [file for file in files if file.suffix in _PICKLES]
    if not pickles:
        raise CheckpointError(f"{source}: has nothing pickled")
    if target.exists():
        raise CheckpointError(f"{target}: is there already; name another with --out")
    try:
        for file in files:
            if file.suffix in _KEPT and file.name != _INDEX:
                _copy(file, target / file.relative_to(source))
        for file in pickles:
            made = target / file.relative_to(source).with_name(_renamed(file.stem) + ".safetensors")
            made.parent.mkdir(parents=True, exist_ok=True)
            _write(file, made)
            yield f"{made}  {made.stat().st_size / _MB:,.1f} MB"
        _write_index(source, target)
        read_recipe(target, name=checkpoint.name)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    yield f"serve  nearfar serve {target}"


def _renamed(stem: str) -> str:
    """Call the transformer's weights as safetensors are called; others keep their name."""
    return stem.replace("pytorch_model", "model")


def _copy(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, to)


def _write(file: Path, to: Path) -> None:
    from nearfar.engines.transformer.pickles import rewrite  # imports torch

    rewrite(file, to)


def _write_index(source: Path, target: Path) -> None:
    """Name the shards anew where there are several."""
    if not (source / _INDEX).is_file():
        return
    index: dict[str, Any] = msgspec.json.decode((source / _INDEX).read_bytes())
    index["weight_map"] = {
        name: _renamed(Path(file).stem) + ".safetensors" for name, file in index["weight_map"].items()
    }
    (target / "model.safetensors.index.json").write_bytes(msgspec.json.encode(index))
