"""The README's examples, run as written against a real server, print what it says they print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from nearfar import Settings
from nearfar.core.settings import load_settings

if TYPE_CHECKING:
    from server_process import ServerProcess

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```\s+```text\n(.*?)```", README, re.DOTALL)


@pytest.mark.usefixtures("_offline_tiktoken")
@pytest.mark.parametrize(("code", "printed"), EXAMPLES, ids=["openai", "cohere", "langchain"])
def test_an_example_prints_what_the_readme_says(server: ServerProcess, code: str, printed: str) -> None:
    code = code.replace("http://127.0.0.1:9000", server.url)

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)

    assert printed == ran.stdout, ran.stderr


def test_the_settings_in_the_table_exist_and_have_these_defaults() -> None:
    variables = set(re.findall(r"NEARFAR_([A-Z_]+[A-Z])", README))

    assert {name.upper() for name in Settings.__struct_fields__} | {"CONFIG"} == variables
    assert ("127.0.0.1", 9000) == (Settings().host, Settings().port)
    assert 10_000_000 == Settings().max_body_bytes
    assert (600_000, 300, 30) == (Settings().queue_tokens, Settings().request_timeout_s, Settings().drain_timeout_s)


def test_the_toml_examples_are_accepted(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    for name, example in zip(("nearfar.toml", "several.toml"), examples, strict=True):
        (tmp_path / name).write_text(example)

    settings = load_settings({}, file=tmp_path / "nearfar.toml", environ={})
    several = load_settings({}, file=tmp_path / "several.toml", environ={})

    assert ["BAAI/bge-small-en-v1.5", "models/my-reranker"] == [model.name for model in settings.models]
    assert "bfloat16" == msgspec.to_builtins(settings)["models"][1]["dtype"]
    assert 6_000_000_000 == several.memory_budget_bytes
    assert [True, False, False] == [model.pin for model in several.models]
