"""Compares the checkpoints with other versions of the libraries, each set in an environment of its own.

``make parity-versions``, or ``python tests/support/parity_versions.py 5.7.0/5.10.4/0.22.2/1.33.0 -k bert``: versions of
LIBRARIES, then options of pytest. Each environment sees the packages of this one, behind its own LIBRARIES.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from manual import ROOT

LIBRARIES = ("sentence-transformers", "transformers", "tokenizers", "huggingface-hub")
# An older transformers than pyproject.toml allows, and the newest, each with sentence-transformers 5 and 6.
VERSIONS = (
    "5.7.0/5.10.4/0.22.2/1.33.0",
    "5.7.0/5.24.0/0.23.3/2.4.0",
    "6.2.0/5.10.4/0.22.2/1.33.0",
    "6.2.0/5.24.0/0.23.3/2.4.0",
)
ENVIRONMENTS = ROOT / "tests" / "parity" / ".environments"


def environment(versions: str) -> Path:
    """Set an environment up, and return its Python."""
    folder = ENVIRONMENTS / versions.replace("/", "-")
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=False, clear=True)
        site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        (site / "parent.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT / 'src'}\n", encoding="utf-8")
        wanted = [f"{name}=={version}" for name, version in zip(LIBRARIES, versions.split("/"), strict=True)]
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
        subprocess.run([*install, *wanted], check=True)
        (folder / "ready").touch()
    return folder / "bin" / "python"


def main(arguments: list[str]) -> int:
    """Run the comparison with each set of versions, and return 0 if all passed."""
    chosen = [argument for argument in arguments if "/" in argument and argument[0].isdigit()]
    options = [argument for argument in arguments if argument not in chosen]
    worst = 0
    for versions in chosen or VERSIONS:
        sys.stdout.write(f"{dict(zip(LIBRARIES, versions.split('/'), strict=True))}\n")
        command = [str(environment(versions)), "-m", "pytest", "-q", "--parity", "all", *options]
        tests = ["tests/parity/test_checkpoint_keys.py", "tests/parity/test_checkpoints.py"]
        worst = max(worst, subprocess.run([*command, *tests], cwd=ROOT, check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
