"""The command ``nearfar keys``: makes, lists, revokes and replaces the keys of a file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from nearfar.cli.options import config_option
from nearfar.core.caller import ALL_SCOPES
from nearfar.core.settings import load_settings
from nearfar.http.gate.keys import add_key, make_key, read_keys, revoke_key, rotate_key

_file_option = partial(click.option, "--file", "keys_file", type=click.Path(path_type=Path, dir_okay=False))
_edited_file = _file_option(help="File of keys.  [default: the setting api_keys_file]")


@click.group()
def keys() -> None:
    """Make, list, revoke and replace API keys.

    They are in the file that api_keys_file names. A running server follows within a second.
    """


@keys.command(name="new")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(ALL_SCOPES),
    help="What the key allows; can be repeated.  [default: embed, rerank]",
)
@_file_option(help="File to add the entry to, instead of printing it.")
def new_key(name: str, scopes: tuple[str, ...], keys_file: Path | None) -> None:
    """Create a key called NAME.

    The key goes to standard error, only this once. Its entry for the file goes to standard output.
    """
    if keys_file:
        _show(add_key(keys_file, name, scopes))
        click.echo(f"added    {name} to {keys_file}")
    else:
        key, entry = make_key(name, scopes)
        _show(key)
        click.echo(entry)


@keys.command(name="list")
@_edited_file
@config_option
def list_keys(keys_file: Path | None, file: Path | None) -> None:
    """List the keys' names, scopes, limits and hashes."""
    for entry in read_keys(_resolve(keys_file, file)):
        limits = [
            f"{name} {value:,}" for name in ("max_concurrent", "tokens_per_minute") if (value := getattr(entry, name))
        ]
        about = ", ".join([*entry.scopes, *limits])
        click.echo(f"{entry.name:<23} {about:<42} sha256 {entry.sha256[:12]}…")


@keys.command(name="revoke")
@click.argument("name")
@_edited_file
@config_option
def revoke(name: str, keys_file: Path | None, file: Path | None) -> None:
    """Remove the key called NAME."""
    chosen = _resolve(keys_file, file)
    revoke_key(chosen, name)
    click.echo(f"revoked  {name} in {chosen}")


@keys.command(name="rotate")
@click.argument("name")
@_edited_file
@config_option
def rotate(name: str, keys_file: Path | None, file: Path | None) -> None:
    """Replace the key called NAME by a new one.

    It keeps its scopes and limits; the former key is invalid at once. The new one goes to standard error.
    """
    chosen = _resolve(keys_file, file)
    _show(rotate_key(chosen, name))
    click.echo(f"rotated  {name} in {chosen}")


def _show(key: str) -> None:
    click.echo(f"# the key, shown only now: {key}", err=True)


def _resolve(keys_file: Path | None, settings_file: Path | None) -> Path:
    """Return the file of keys. Raises UsageError if there is none."""
    chosen = keys_file or load_settings({}, file=settings_file).api_keys_path
    if chosen is None:
        raise click.UsageError("no file of keys: name it with --file, or set api_keys_file in the settings")
    return chosen
