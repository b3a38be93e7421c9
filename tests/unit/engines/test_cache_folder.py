"""A cache folder that other users may write to isn't used, and a seal is only valid for what was sealed."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from nearfar.engines.common.cache_folder import is_sealed, seal, trusted_cache
from nearfar.serving.verification.fingerprint import VerifiedFolders

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def reachable(tmp_path: Path) -> Path:
    """Return a folder that every user can reach."""
    for place in (tmp_path, *tmp_path.parents):
        if place.stat().st_mode & 0o077 == 0:
            place.chmod(0o755)
    folder = tmp_path / "above" / "cache"
    folder.mkdir(parents=True)
    folder.parent.chmod(0o755)
    folder.chmod(0o755)
    return folder


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o1777])
@pytest.mark.parametrize("place", ["cache", "above"])
def test_a_folder_that_others_may_write_to_is_not_used(
    mode: int, place: str, reachable: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In a sticky folder others can't rename the cache, so there it may be."""
    changed = reachable if place == "cache" else reachable.parent
    changed.chmod(mode)

    with caplog.at_level(logging.WARNING):
        found = trusted_cache(reachable)

    expected = reachable if place == "above" and mode == 0o1777 else None
    assert expected == found
    assert expected or f"chmod go-w {changed}" in caplog.text


def test_other_folders_are_used(reachable: Path) -> None:
    closed = reachable / "closed"
    closed.mkdir(mode=0o700)
    (closed / "group").mkdir(mode=0o775)

    assert [None, reachable, closed / "group", closed / "new"] == [
        trusted_cache(folder) for folder in (None, reachable, closed / "group", closed / "new")
    ]


def test_the_neighbors_of_a_folder_that_can_not_be_created_do_not_matter(
    reachable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With / as home folder, it is /.cache/nearfar, and everyone may write to /tmp."""
    (reachable / "tmp").mkdir()
    (reachable / "tmp").chmod(0o1777)
    monkeypatch.setattr("pathlib.Path.mkdir", Mock(side_effect=PermissionError))
    cache = reachable / "new" / "cache"

    assert cache == trusted_cache(cache)


def test_a_seal_is_valid_for_the_same_files_and_the_same_purpose_only(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_text("x" * 100)
    seal(tmp_path, tmp_path, "both", files, b"weights")

    valid = [is_sealed(tmp_path, tmp_path, "both", files, b"weights")]
    others = [
        is_sealed(tmp_path, tmp_path, "both", files, b"other"),
        is_sealed(tmp_path, tmp_path, "both", files[:1], b"weights"),
        is_sealed(tmp_path, tmp_path, "other", files, b"weights"),
    ]
    files[0].write_text("y" + "x" * 99)
    others.append(is_sealed(tmp_path, tmp_path, "both", files, b"weights"))
    files[0].write_text("x" * 100)
    (tmp_path / ".key").chmod(0o644)
    others.append(is_sealed(tmp_path, tmp_path, "both", files, b"weights"))

    assert [True] == valid
    assert [False] * 5 == others


MALLORY = 12_345


def _link_into_foreign(cache: Path) -> Path:
    foreign = cache.parent.parent / "foreign"
    (foreign / "mine").mkdir(parents=True)
    os.chown(foreign, MALLORY, MALLORY)
    (cache.parent / "link").symlink_to(foreign / "mine")
    return cache.parent / "link"


def _link_of_another(cache: Path) -> Path:
    link = cache.parent / "link"
    cache.parent.chmod(0o1777)
    link.symlink_to(cache)
    os.chown(link, MALLORY, MALLORY, follow_symlinks=False)
    return link


def _link_by_a_foreign_link(cache: Path) -> Path:
    first, foreign = cache.parent / "first", _link_into_foreign(cache).parent.parent / "foreign"
    (foreign / "second").symlink_to(cache)
    first.symlink_to(foreign / "second")
    return first


def _foreign(cache: Path) -> Path:
    os.chown(cache, MALLORY, MALLORY)
    return cache


def _foreign_parent(cache: Path) -> Path:
    os.chown(cache.parent, MALLORY, MALLORY)
    return cache


def _foreign_inside(cache: Path) -> Path:
    (cache / "openvino").mkdir()
    os.chown(cache / "openvino", MALLORY, MALLORY)
    return cache


def _open_inside(cache: Path) -> Path:
    (cache / "verified").mkdir()
    (cache / "verified").chmod(0o777)
    return cache


def _private_link(cache: Path) -> Path:
    private = cache.parent / "private"
    private.mkdir(mode=0o700)
    (private / "link").symlink_to(_link_into_foreign(cache))
    return private / "link"


ATTACKS = [_link_into_foreign, _link_of_another, _link_by_a_foreign_link, _foreign, _foreign_parent]
ATTACKS += [_foreign_inside, _open_inside, _private_link]


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can create files of another user")
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_folder_that_another_user_can_replace_is_not_used(attack: Callable[[Path], Path], reachable: Path) -> None:
    assert trusted_cache(attack(reachable)) is None


def test_a_link_of_ones_own_is_used(reachable: Path) -> None:
    link = reachable.parent / "link"
    link.symlink_to("cache")

    assert link == trusted_cache(link)


def test_a_new_folder_is_its_owner_s_only_whatever_the_mask(reachable: Path) -> None:
    """With a mask of 002, the folder would be refused at the next start."""
    before = os.umask(0o002)
    try:
        found = trusted_cache(reachable / "new" / "cache")
        assert found == trusted_cache(reachable / "new" / "cache") == reachable / "new" / "cache"
    finally:
        os.umask(before)

    assert [0o700] * 2 == [place.stat().st_mode & 0o777 for place in (reachable / "new", reachable / "new" / "cache")]


def _pipe(file: Path) -> None:
    os.mkfifo(file)


def _large(file: Path) -> None:
    file.touch()
    os.truncate(file, 2 * 10**9)


@pytest.mark.parametrize("replace", [_pipe, _large, lambda file: file.symlink_to("/dev/zero")])
@pytest.mark.parametrize("name", [".key", "one.mac", "verified/{}.json", "verified/{}.mac"])
def test_a_file_that_can_not_be_read_is_no_seal_and_no_result(
    name: str, replace: Callable[[Path], None], tmp_path: Path
) -> None:
    one = tmp_path / "one"
    one.touch()
    seal(tmp_path, tmp_path, "one", [one], b"")
    folders = VerifiedFolders(tmp_path, tmp_path / "model", "recipe")
    folders.add("torch float32", "verified")
    before = (is_sealed(tmp_path, tmp_path, "one", [one], b""), folders.read())
    stem = next((tmp_path / "verified").glob("*.json")).stem
    (tmp_path / name.format(stem)).unlink()
    replace(tmp_path / name.format(stem))

    after = (is_sealed(tmp_path, tmp_path, "one", [one], b""), folders.read())

    assert (True, {"torch float32": "verified"}) == before
    assert after != before
    assert after[1] == {} or name == "one.mac"


def test_a_pipe_in_place_of_a_sealed_file_is_no_such_file(tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.touch()
    seal(tmp_path, tmp_path, "one", [one], b"")
    one.unlink()
    os.mkfifo(one)

    assert not is_sealed(tmp_path, tmp_path, "one", [one], b"")


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can create files of another user")
def test_a_key_that_another_user_has_made_seals_nothing(tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.touch()
    seal(tmp_path, tmp_path, "one", [one], b"")
    os.chown(tmp_path / ".key", MALLORY, MALLORY)

    assert not is_sealed(tmp_path, tmp_path, "one", [one], b"")


def test_a_forged_result_of_a_verification_is_not_believed(tmp_path: Path) -> None:
    folders = VerifiedFolders(tmp_path, tmp_path / "model", "recipe")
    folders.add("torch float32", "not verified: no reference")
    file = next((tmp_path / "verified").glob("*.json"))
    file.write_text('{"torch float32":"verified against torch on 39 samples"}')
    forged = folders.read()

    folders.add("torch float32", "verified")

    assert ({}, {"torch float32": "verified"}) == (forged, folders.read())
