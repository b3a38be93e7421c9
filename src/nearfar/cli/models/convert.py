"""The commands ``convert`` and ``unpickle``: write a model's weights in another format, into a new folder."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from nearfar.core.errors import CheckpointError
from nearfar.engines.base import OpenRequest
from nearfar.engines.selection import choose_engines
from nearfar.models.files.safetensors import PICKLES
from nearfar.models.hub.checkpoint import find_checkpoint
from nearfar.models.hub.download import Hub
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nearfar.core.settings import Settings

_KEPT = (".json", ".txt", ".model", ".jinja", ".md", ".metadata")
_INDEX = "pytorch_model.bin.index.json"
_MB = 1_000_000


def convert_model(settings: Settings, out: Path | None, **quantization: Any) -> Iterator[str]:
    """Quantize the first model of the settings for MLX. Yield lines with its folder, its size and its loss.

    ``quantization`` has ``mode``, ``bits`` and ``group_size``; the latter two may be None for the mode's defaults.
    Raises a SetupError if MLX isn't installed, or can't quantize this model so.
    """
    choose_engines("mlx", settings.device)
    from nearfar.engines.mlx.quantization import QuantizationOptions, quantize_folder  # imports mlx

    hub = Hub(endpoint=settings.hub_endpoint, offline=settings.offline)
    checkpoint = find_checkpoint(settings.models[0].name, hub)
    recipe = read_recipe(checkpoint.folder, name=checkpoint.name)
    request = OpenRequest(
        folder=checkpoint.folder / recipe.subfolder,
        recipe=recipe,
        device=settings.device,
        dtype="float32",
        probes=TextEncoder(checkpoint.folder / recipe.subfolder, recipe).sample_rows(),
    )
    chosen = QuantizationOptions(**quantization)
    kind = f"{chosen.resolve()['bits']}bit" if chosen.mode == "affine" else chosen.mode
    target = out or Path(f"{checkpoint.name.rpartition('/')[2]}-{kind}")
    made = quantize_folder(request, target, chosen, checkpoint.name)
    yield f"folder   {target}"
    yield f"size     {made.bytes_after / _MB:,.1f} MB of weights, {made.bytes_before / _MB:,.1f} MB before"
    yield f"exact    {made.loss}"
    yield f"serve    nearfar serve {target} --engine mlx"


def unpickle_model(settings: Settings, out: Path | None) -> Iterator[str]:
    """Write the first model of the settings as safetensors. Yield a line for each file.

    torch reads the pickles with ``weights_only``, which accepts tensors and refuses everything that would run code.
    Raises CheckpointError if nothing is pickled, a pickle has more than tensors, or the result can't be served;
    EngineUnavailable without torch.
    """
    choose_engines("torch", settings.device)
    from nearfar.engines.transformer.pickle_conversion import convert_pickle  # imports torch

    hub = Hub(endpoint=settings.hub_endpoint, offline=settings.offline, include_pickles=True)
    checkpoint = find_checkpoint(settings.models[0].name, hub)
    source, target = checkpoint.folder, out or Path(f"{checkpoint.name.rpartition('/')[2]}-safetensors")
    files = [file for file in sorted(source.rglob("*")) if file.is_file()]
    pickles = [file for file in files if file.suffix in PICKLES]
    if not pickles:
        raise CheckpointError(
            f"{source}: has no pickled weights; try it as it is: nearfar check {shlex.quote(str(source))}"
        )
    if target.exists():
        raise CheckpointError(f"{target}: already exists; choose another folder with --out")
    try:
        for file in files:
            if file.suffix in _KEPT and file.name != _INDEX:
                made = target / file.relative_to(source)
                made.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, made)
        for file in pickles:
            made = target / file.relative_to(source).with_name(_renamed(file.stem) + ".safetensors")
            made.parent.mkdir(parents=True, exist_ok=True)
            convert_pickle(file, made)
            yield f"{made}  {made.stat().st_size / _MB:,.1f} MB"
        _write_index(source, target)
        read_recipe(target, name=checkpoint.name)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    yield f"serve  nearfar serve {target}"


def _renamed(stem: str) -> str:
    """Return the safetensors name for a file of the transformer; other files keep their names."""
    return stem.replace("pytorch_model", "model")


def _write_index(source: Path, target: Path) -> None:
    """Write the index of the shards with their new names, if there is one."""
    if not (source / _INDEX).is_file():
        return
    index: dict[str, Any] = msgspec.json.decode((source / _INDEX).read_bytes())
    index["weight_map"] = {
        name: _renamed(Path(file).stem) + ".safetensors" for name, file in index["weight_map"].items()
    }
    (target / "model.safetensors.index.json").write_bytes(msgspec.json.encode(index))
