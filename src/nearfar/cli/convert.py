"""What the command ``convert`` does: a model's weights quantised for MLX, in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nearfar.engines.base import OpenRequest
from nearfar.engines.selection import choose_engines
from nearfar.models.hub.checkpoint import find_checkpoint
from nearfar.models.hub.download import Hub
from nearfar.models.reading.reader import read_recipe
from nearfar.models.tokenization.text_encoder import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nearfar.core.settings import Settings

_MB = 1_000_000


def convert_model(settings: Settings, out: Path | None, **way: Any) -> Iterator[str]:
    """Quantise the first model of the settings, and say in lines where it is, what it costs and what it saves.

    ``way`` has ``mode``, ``bits`` and ``group_size``, the latter two None for the mode's usual. Raises a SetupError
    where MLX isn't installed, or the model or the way of quantising isn't for it.
    """
    choose_engines("mlx", settings.device)
    from nearfar.engines.mlx.quantizing import Way, quantize_folder  # imports mlx

    hub = Hub(endpoint=settings.hub_endpoint, offline=settings.offline)
    checkpoint = find_checkpoint(settings.models[0].name, hub)
    recipe = read_recipe(checkpoint.folder, name=checkpoint.name)
    request = OpenRequest(
        folder=checkpoint.folder,
        recipe=recipe,
        device=settings.device,
        dtype="float32",
        probes=TextEncoder(checkpoint.folder, recipe).sample_rows(),
    )
    chosen = Way(**way)
    kind = f"{chosen.checked()['bits']}bit" if chosen.mode == "affine" else chosen.mode
    target = out or Path(f"{checkpoint.name.rpartition('/')[2]}-{kind}")
    made = quantize_folder(request, target, chosen, checkpoint.name)
    yield f"folder   {target}"
    yield f"size     {made.after / _MB:,.1f} MB of weights, {made.before / _MB:,.1f} MB before"
    yield f"exact    {made.loss}"
    yield f"serve    nearfar serve {target} --engine mlx"
