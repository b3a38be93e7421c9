r"""A file of variables that only its owner may read: ``NAME="value"`` lines, for systemd and the shell alike.

Both take a backslash before ``"``, ``\``, ``$`` and a backtick for that character itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nearfar.core.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_HEAD = '# Variables of the service, such as:  NEARFAR_API_KEY="…"\n'
_LINE = re.compile(r"""^\s*([A-Za-z_]\w*)=(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|(\S*))\s*$""")
_SPECIAL, _ESCAPED = re.compile(r'(["\\`$])'), r"\\\1"
_OTHERS = 0o077


def write_variables(file: Path, variables: Mapping[str, str]) -> None:
    """Make the file, which must not exist, readable by its owner alone from the first moment."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600, exist_ok=False)
    lines = [f'{name}="{_SPECIAL.sub(_ESCAPED, value)}"\n' for name, value in sorted(variables.items())]
    file.write_text(_HEAD + "".join(lines), encoding="utf-8")


def read_variables(file: Path) -> dict[str, str]:
    """Read the file; none has no variables. Raises SettingsError where others can read it, or can't be understood."""
    try:
        mode, text = file.stat().st_mode, file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: can't be read ({error})") from error
    if mode & _OTHERS:
        raise SettingsError(f"{file}: others may read it, and it is for keys; say: chmod 600 {file}")
    variables: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith(("#", ";")):
            continue
        if not (found := _LINE.match(line)):
            raise SettingsError(f'{file}: line {number} is not NAME="value"')
        name, double, single, bare = found.groups()
        variables[name] = re.sub(r'\\(["\\`$])', r"\1", double) if double is not None else single or bare or ""
    return variables
