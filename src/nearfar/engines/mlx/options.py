"""Options of config.json, held against what a transformer's file really computes."""

from __future__ import annotations

from typing import Any

from nearfar.core.errors import EngineUnavailable

Config = dict[str, Any]


class Unsupported(EngineUnavailable):
    """Something in config.json that the transformer's file doesn't compute; another engine may."""

    def __init__(self, what: str) -> None:
        super().__init__(f"config.json: the MLX engine doesn't support {what}; use --engine torch")


def only(config: Config, **allowed: object) -> None:
    """Raise Unsupported for an option that is set to something that the transformer's file doesn't do."""
    for name, value in allowed.items():
        said = config.get(name)
        if said is not None and said != value:
            raise Unsupported(f"{name} = {said}")


def only_full_attention(config: Config) -> None:
    """Raise Unsupported where some layers see a part of the text only."""
    kinds = set(config.get("layer_types") or ())
    if kinds - {"full_attention"}:
        raise Unsupported(f"layer_types = {', '.join(sorted(kinds))}")


def theta(config: Config, kind: str = "", default: float = 10_000.0) -> float:
    """Read the base of the rotary positions, in either spelling; refuse positions that are stretched."""
    stretched = config.get("rope_scaling")
    parameters: Config = config.get("rope_parameters") or {}
    parameters = parameters.get(kind, parameters)
    if parameters.get("rope_type", "default") != "default" or stretched:
        raise Unsupported("scaled rotary positions")
    return float(parameters.get("rope_theta") or config.get("rope_theta") or default)


def arguments(kind: type, config: Config) -> Any:
    """Make a file's own arguments. Raises TypeError where config.json lacks one."""
    return kind.from_dict(config)  # type: ignore[attr-defined]  # every ModelArgs has it


def period(kinds: list[str], wanted: str, *, first: int | None) -> int:
    """Tell how often a kind of layer comes: the first layer, or else the last of each round, is of that kind."""
    places = [at for at, kind in enumerate(kinds) if kind == wanted]
    start = first if first is not None else (places[0] if places else len(kinds))
    period = (places[1] - places[0] if len(places) > 1 else len(kinds)) if first is not None else start + 1
    regular = [at for at in range(len(kinds)) if (at - start) % period == 0]
    if places != [at for at in regular if at >= start]:
        raise Unsupported(f"layer_types = {kinds}")
    return period
