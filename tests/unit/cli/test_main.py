"""The command line, without a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest
from checkpoints import write_files, write_transformer
from click.testing import CliRunner

import nearfar
from nearfar.cli.main import main
from nearfar.core.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.output


def commands(group: click.Group, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with its path."""
    for name, command in group.commands.items():
        yield (*prefix, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))


def test_the_version_is_that_of_the_package() -> None:
    assert (0, f"nearfar, version {nearfar.__version__}\n") == run("--version")


def test_every_command_and_every_option_is_described() -> None:
    offenders = [path for path, _ in commands(main) if run(*path, "--help")[0] != 0]
    offenders += [
        (*path, option.opts[0])
        for path, command in [((), main), *commands(main)]
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden and not option.help
    ]
    offenders += [path for path, command in commands(main) if command.get_short_help_str(66).endswith("...")]

    assert [] == offenders


def test_every_option_of_serve_is_named_after_its_setting() -> None:
    options = {option.name for option in main.commands["serve"].params if isinstance(option, click.Option)}

    assert {"more", "file", "worker", "workers"} == options - {*Settings.__struct_fields__}


def test_an_unknown_command_or_option_is_refused_with_a_hint() -> None:
    hints = {
        ("version",): "--version",
        ("list",): "nearfar models",
        ("ps",): "nearfar service status",
        ("run", "model"): "nearfar serve MODEL",
        ("stop",): "Ctrl-C",
        ("download", "model"): "nearfar pull MODEL",
        ("upgrade",): "pip install --upgrade nearfar",
        ("login",): "HF_TOKEN",
        ("run-batch",): "nearfar batch IN OUT",
        ("reload",): "SIGHUP",
        ("service", "stop"): "nearfar service uninstall",
        ("service", "enable"): "nearfar service install",
        ("serve", "--gpu"): "--device cuda",
        ("serve", "--model-id", "owner/model"): "nearfar serve MODEL",
        ("serve", "--log-level", "debug"): "--log-format",
        ("check", "--trust-remote-code", "model"): "never run",
        ("servr",): "'serve'",
        ("--port", "9000"): "nearfar serve --port",
        ("-v",): "nearfar --version",
        ("serve", "--max-model-len", "512"): "max_tokens",
        ("serve", "--max-client-batch-size=32"): "NEARFAR_MAX_INPUTS",
        ("serve", "-p", "9000"): "--port",
        ("serve", ""): "a MODEL is empty",
        ("check", " "): "a MODEL is empty",
        ("service", "instal"): "'install'",
        ("serve", "--tls-cert", "x"): "'--tls-cert-file'",
        ("serve", "--drain"): "No such option",
    }

    offenders = {path: found for path, hint in hints.items() if (found := run(*path))[0] != 2 or hint not in found[1]}

    assert {} == offenders


WRONG = """
servee | serve --port 99999 | serve --port abc | serve --engine gpu | serve --device quantum | serve --portt 9
serve --host 0.0.0.0 | serve --memory-budget lots | serve --config none.toml | serve --load later | serve --dtype fp8
try | rank query | rank query none.txt | pull | pull owner/none --offline | check none
docs recepies | models --task embedding | models none | keys new --scope root | completion tcsh | service start
service status extra | convert | unpickle none | monitoring graph | example prod | --port 9 | bench
"""


@pytest.mark.parametrize("line", [line.strip() for line in WRONG.replace("\n", "|").split("|") if line.strip()])
def test_every_refusal_names_a_command_that_helps(line: str) -> None:
    result = CliRunner().invoke(main, line.split(), prog_name="nearfar")

    assert result.exit_code in {1, 2}
    assert "nearfar " in result.output.replace("Usage: nearfar ", "")


def test_check_of_an_unknown_model_is_one_line_and_code_1() -> None:
    code, output = run("check", "no-such-model")

    assert 1 == code
    message = "Error: no-such-model: neither a folder nor a Hugging Face name (owner/model)"
    assert f"{message}; nearfar models --catalog lists names\n" == output


HOMELESS: dict[tuple[str, ...], tuple[int, str]] = {
    ("models",): (0, "engine torch: can run here"),
    ("models", "--config", "tilde.toml"): (0, "engine torch: can run here"),
    ("service", "status"): (2, "there is no home folder for a service of your own; set HOME, or use --system"),
    ("service", "install", "--print"): (2, "there is no home folder for a service of your own"),
    ("service", "install", "--system", "--print"): (0, "Written by: nearfar service install"),
    ("keys", "list"): (2, "no file of keys"),
    ("convert", "owner/model", "--offline"): (1, "owner/model"),
}


def test_without_a_home_folder_a_command_works_or_asks_for_one(tmp_path: Path) -> None:
    (tmp_path / "tilde.toml").write_text('models = [{ name = "~/model" }]\n')
    environment = {"HOME": "~", "PATH": os.environ["PATH"]}  # as without HOME for a user that passwd lacks

    offenders = []
    for words, (code, message) in HOMELESS.items():
        line = [sys.executable, "-m", "nearfar", *words]
        ended = subprocess.run(line, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
        output = ended.stdout + ended.stderr
        if code != ended.returncode or message not in output or "Traceback" in output:
            offenders.append((words, ended.returncode, output[-300:]))

    assert [] == offenders
    assert ["tilde.toml"] == [path.name for path in tmp_path.iterdir()]  # no folder called ~


def test_check_of_a_file_asks_for_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")

    code, output = run("check", str(file))

    assert 1 == code
    assert f"Error: {file}: is a file; a model is the folder with its config.json and *.safetensors\n" == output


def test_a_name_that_other_programs_take_is_answered_with_the_hub_s() -> None:
    names = {
        "https://huggingface.co/BAAI/bge-m3/tree/main": "BAAI/bge-m3",
        "huggingface.co/BAAI/bge-m3": "BAAI/bge-m3",
        "hf.co/BAAI/bge-m3:Q8_0": "BAAI/bge-m3",
        "hf://BAAI/bge-m3": "BAAI/bge-m3",
        "nomic-embed-text": "nomic-ai/nomic-embed-text-v1.5",
        "Nomic-Embed-Text:latest": "nomic-ai/nomic-embed-text-v1.5",
        "library/bge-m3:567m": "BAAI/bge-m3",
        "owner/model:latest": "owner/model",
    }

    wrong = {
        name: output
        for name, expected in names.items()
        if not (output := run("check", name)[1]).endswith(f"(owner/model); did you mean {expected}?\n")
    }
    assert {} == wrong
    assert "did you mean" not in run("check", "./no/such/folder")[1]


def test_a_device_as_engine_is_answered_with_its_option() -> None:
    found = {engine: run("check", "--engine", engine) for engine in ("cuda", "cpu", "mps", "gpu")}

    assert {} == {engine: each for engine, each in found.items() if each[0] != 2 or "use --device" not in each[1]}


def cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def a_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def with_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    write_files(folder, {"config.json": config | {"auto_map": {"AutoModel": "modeling.Mine"}}})


def unknown(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    write_files(folder, {"config.json": config | {"model_type": "unheard-of"}})


def not_json(folder: Path) -> None:
    (folder / "config.json").write_text("<!doctype html>")


DAMAGES = [
    (cut_short, "/model.safetensors: is truncated or damaged (", "download it again"),
    (a_pointer, "/model.safetensors: is a Git LFS pointer, not the weights", "run git lfs pull"),
    (without_tokenizer, ": has no tokenizer", "download it"),
    (with_code, "/config.json: needs remote code (modeling.Mine)", "use a model that"),
    (unknown, "/config.json: the installed transformers has no code for the model_type", "update it"),
    (not_json, "/config.json: is damaged: ", "correct the file"),
]


def test_check_names_the_broken_file_and_the_remedy(tmp_path: Path) -> None:
    offenders = []
    for damage, start, remedy in DAMAGES:
        folder = write_transformer(tmp_path / damage.__name__, "bert")
        damage(folder)
        code, output = run("check", str(folder), "--engine", "torch", "--device", "cpu")
        if code != 1 or not output.startswith(f"Error: {folder}{start}") or remedy not in output:
            offenders.append((damage.__name__, output))

    assert [] == offenders


def test_models_lists_the_built_in_model_and_the_engines() -> None:
    code, output = run("models")

    assert 0 == code
    assert "sentence-transformers/all-MiniLM-L6-v2  built-in, verified" in output
    assert "engine torch: can run here" in output


def test_models_describes_the_folders_of_the_settings(tmp_path: Path) -> None:
    good = write_transformer(tmp_path / "good", "bert")
    (tmp_path / "empty").mkdir()
    config = tmp_path / "nearfar.toml"
    config.write_text(f'[[models]]\nname = "{good}"\n[[models]]\nname = "{tmp_path / "empty"}"\n')

    _, output = run("models", "--config", str(config))

    assert f"{good}  32 dimensions, mean pooling" in output
    assert f"{tmp_path / 'empty'}  can't be served: " in output


def test_try_shows_what_is_similar() -> None:
    code, output = run("try", "a cat on the sofa", "a kitten on the couch", "stock prices fell", "--engine", "torch")
    lines = output.splitlines()

    assert 0 == code
    assert "sentence-transformers/all-MiniLM-L6-v2: 384 dimensions, 19 tokens" == lines[0]
    assert ["1", "1.00"] == lines[2].split()[:2]
    assert lines[5].endswith("a cat on the sofa  ~  a kitten on the couch")
    nearest, *others = [float(line.split()[1]) for line in lines[5:]]
    assert nearest > 0.5 > max(others)


def test_try_needs_two_texts() -> None:
    code, output = run("try", "a cat")

    assert (2, True) == (code, 'nearfar try "a cat" "a kitten"' in output)


def test_docs_names_its_pages_for_one_that_is_missing() -> None:
    code, output = run("docs", "nopage")

    assert 2 == code
    assert output.splitlines()[0].endswith(" docs [OPTIONS] [PAGE]")
    assert "'recipes'" in output


def test_try_reports_what_is_cut() -> None:
    _, output = run("try", "word " * 300, "short", "--engine", "torch")

    assert "46 tokens were cut: this model reads 256 tokens of a text" in output


def test_rank_sorts_the_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_bytes(
        "\ufeffBananas are yellow.\n\nThe cat sat on the mat.\nBad \udcff byte\n".encode(errors="surrogateescape")
    )

    code, output = run("rank", "Where is the cat?", str(file), "--engine", "torch", "--top", "2")
    lines = output.splitlines()

    assert 0 == code
    assert 3 == len(lines)
    assert lines[1].endswith("  The cat sat on the mat.")


def test_rank_of_nothing_and_of_a_model_without_the_task_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    classifier = write_transformer(tmp_path / "model", "bert", labels=3)

    code, output = run("rank", "x", str(tmp_path / "empty.txt"))
    other_code, other = run("try", "a", "b", "--model", str(classifier), "--engine", "torch")

    assert (2, True) == (code, "empty.txt has no lines to rank" in output)
    assert (1, "Error: model 'model' can't embed") == (other_code, other.splitlines()[-1])


def test_pull_says_where_a_model_is_and_how_to_serve_it(tmp_path: Path) -> None:
    folder = write_transformer(tmp_path / "a model", "bert")

    code, output = run("pull", str(folder))
    failed, refusal = run("pull", "owner/none", "--offline")

    assert 0 == code
    assert [
        "a model  32 dimensions, mean pooling",
        f"folder    {folder}",
        f"serve it  nearfar serve '{folder}'",
    ] == output.splitlines()
    assert 1 == failed
    assert refusal.startswith("Error: owner/none: not on this disk, and --offline forbids downloading it")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_for_the_shell(shell: str) -> None:
    code, output = run("completion", shell)

    assert 0 == code
    assert f"_NEARFAR_COMPLETE={shell}_complete" in output
