"""``nearfar keys``: the file of keys is edited as a whole, and never left broken or with other keys changed."""

from __future__ import annotations

import multiprocessing
import stat
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from nearfar.cli.main import main
from nearfar.http.gate.auth import KeyRing
from nearfar.http.gate.keys import add_key, read_keys, rotate_key

if TYPE_CHECKING:
    from pathlib import Path

HASHES = {name: name * 64 for name in "abc"}
TABLES = """\
# keys of the team
[[keys]]
name = "a"  # Alice
sha256 = "{a}"

# Bob's, for the batch job
[[keys]]
name = "b"
sha256 = "{b}"
scopes = ["embed"]
max_concurrent = 4

# of the dashboard
[[keys]]
name = "c"
sha256 = "{c}"
""".format(**HASHES)
INLINE = 'keys = [{{name = "a", sha256 = "{a}"}}, {{name = "b", sha256 = "{b}"}}]\n'.format(**HASHES)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ("keys", *arguments))
    return result.exit_code, result.output


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "keys.toml"
    written.write_text(TABLES)
    return written


def names(file: Path) -> list[str]:
    return [entry.name for entry in read_keys(file)]


@pytest.mark.parametrize("revoked", "abc")
def test_a_revoked_key_is_gone_and_the_others_and_their_comments_stay(file: Path, revoked: str) -> None:
    code, _ = run("revoke", revoked, "--file", str(file))

    left = file.read_text()
    assert 0 == code
    assert [name for name in "abc" if name != revoked] == names(file)
    assert HASHES[revoked] not in left
    assert ["# keys of the team", "# Bob's, for the batch job", "# of the dashboard"] == [
        line for line in left.splitlines() if line.startswith("#")
    ]


def test_a_rotated_key_keeps_its_scopes_and_limits_and_the_former_is_invalid(file: Path) -> None:
    former = rotate_key(file, "b")

    code, output = run("rotate", "b", "--file", str(file))

    key = output.partition("# the key, shown only now: ")[2].split()[0]
    ring = KeyRing(None, file)
    found = ring.find(key.encode())
    assert 0 == code
    assert found
    assert ("b", ("embed",), 4) == (found.entry.name, found.entry.scopes, found.entry.max_concurrent)
    assert ring.find(former.encode()) is None
    assert TABLES == file.read_text().replace(found.entry.sha256, HASHES["b"])
    assert key not in file.read_text()


def test_a_new_key_is_added_to_a_new_or_an_existing_file(file: Path) -> None:
    fresh = file.with_name("fresh.toml")

    codes = [run("new", "d", "--scope", "admin", "--file", str(path))[0] for path in (file, fresh)]

    assert [0, 0] == codes
    assert (["a", "b", "c", "d"], ["d"]) == (names(file), names(fresh))
    assert ("admin",) == read_keys(fresh)[0].scopes


def test_the_list_has_names_scopes_and_limits_of_the_file_that_the_settings_name(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARFAR_API_KEYS_FILE", str(file))

    code, output = run("list")

    lines = output.splitlines()
    assert 0 == code
    assert ["a", "b", "c"] == [line.split()[0] for line in lines]
    assert "embed, max_concurrent 4" in lines[1]
    assert "bbbbbbbbbbbb…" in lines[1]


def test_what_cannot_be_done_is_refused_and_changes_nothing(file: Path) -> None:
    alone, inline = file.with_name("alone.toml"), file.with_name("inline.toml")
    alone.write_text(TABLES[: TABLES.index("# Bob")])
    inline.write_text(INLINE)
    twice = file.with_name("twice.toml")
    twice.write_text(TABLES.replace(HASHES["b"], HASHES["a"]))
    shared = file.with_name("shared.toml")
    shared.write_text(TABLES)
    shared.chmod(0o666)
    table = {
        ("revoke", "x", "--file", str(file)): "no key is named x; it has: a, b, c",
        ("revoke", "a", "--file", str(alone)): "a is the only key; replace it with: nearfar keys rotate a",
        ("revoke", "a", "--file", str(inline)): "begin each with [[keys]]",
        ("rotate", "a", "--file", str(twice)): "entries that nearfar can't change",
        ("new", "a", "--file", str(file)): "has a key named a",
        ("new", 'x"\ny = 1', "--file", str(file)): "expected a name of at most 64",
        ("new", "x\n"): "expected a name of at most 64",
        ("revoke", "a\n", "--file", str(file)): "'a\\n': expected a name of at most 64",
        ("rotate", "\x1b[31m", "--file", str(file)): "'\\x1b[31m': expected a name of at most 64",
        ("list", "--file", str(shared)): f"every user can add keys to it; run: chmod o-w {shared}",
        ("new", "d", "--file", str(shared)): "every user can add keys to it",
        ("list",): "no file of keys: name it with --file, or set api_keys_file",
        ("rotate", "a", "--file", str(file.parent / "gone" / "k.toml")): "can't be read (No such file or directory)",
    }
    before = {path: path.read_bytes() for path in file.parent.iterdir()}

    found = {arguments: run(*arguments) for arguments in table}

    assert {} == {words: got for words, got in found.items() if got[0] == 0 or table[words] not in got[1]}
    assert before == {path: path.read_bytes() for path in file.parent.iterdir()}


def test_keys_written_in_one_line_can_be_rotated(file: Path) -> None:
    file.write_text(INLINE)

    rotate_key(file, "b")

    assert ["a", "b"] == names(file)
    assert HASHES["b"] not in file.read_text()


def test_a_link_and_the_mode_stay_and_no_other_file_is_left(file: Path) -> None:
    file.chmod(0o640)
    link = file.with_name("link.toml")
    link.symlink_to(file.name)

    rotate_key(link, "a")

    assert link.is_symlink()
    assert 0o640 == stat.S_IMODE(file.stat().st_mode)
    assert ["keys.toml", "link.toml"] == sorted(path.name for path in file.parent.iterdir())


def test_a_byte_order_mark_and_windows_line_ends_are_read(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + TABLES.replace("\n", "\r\n").encode())

    code, _ = run("revoke", "b", "--file", str(file))

    assert 0 == code
    assert ["a", "c"] == names(file)


def test_commands_that_run_at_once_lose_no_change(file: Path) -> None:
    added = [f"k{number}" for number in range(8)]

    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.starmap(add_key, [(file, name) for name in added])

    assert sorted(["a", "b", "c", *added]) == sorted(names(file))
