"""What README and the manual show of this repository is there."""

from __future__ import annotations

import re

from manual import ROOT, codes, read, tables

SRC = ROOT / "src" / "nearfar"


def rooms() -> set[str]:
    """Return the folders of the package."""
    return {folder.name for folder in SRC.iterdir() if folder.is_dir() and folder.name != "__pycache__"}


def test_readme_lists_every_folder_of_the_package() -> None:
    listed = re.findall(r"^(\w+)/  ", read("README"), re.MULTILINE)

    assert rooms() == {*listed}


def test_the_contributing_page_lists_the_same_folders_in_the_same_order() -> None:
    folders = [codes(folder)[0] for folder, _ in tables("contributing", "| folder | what is in it |")]
    listed = re.findall(r"^(\w+)/  ", read("README"), re.MULTILINE)

    assert [f"src/nearfar/{room}" for room in listed] == [folder for folder in folders if folder.startswith("src/")]
    assert [] == [folder for folder in folders if not (ROOT / folder).is_dir()]


def test_the_contributing_page_lists_every_target_of_make() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = {f"make {name}" for line in re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE) for name in line.split()}

    listed = {code for command, _ in tables("contributing", "| command | what it does |") for code in codes(command)}

    assert phony == listed
