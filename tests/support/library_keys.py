"""Lists the keys that the installed transformers and sentence-transformers read from each file of a checkpoint.

They are taken from the libraries' source, so that a release that reads another key is noticed. ``python
tests/support/library_keys.py`` writes the manual's page about them from ``KEYS_FILE``, which has our decisions.
"""

from __future__ import annotations

import ast
import tomllib
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manual import FOLDER, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KEYS_FILE = ROOT / "tests" / "parity" / "keys.toml"
PAGE = FOLDER / "checkpoints.md"
# The steps of modules.json that are supported. An option of any other doesn't matter: the step is refused.
MODULES = ("Pooling", "Dense", "LayerNorm", "Normalize", "Dropout", "SpladePooling", "LogitScore", "MultiVectorMask")
# The functions of transformers that read tokenizer_config.json.
_TOKENIZER_READERS = ("__init__", "from_pretrained", "_from_pretrained", "convert_to_native_format")
_INTRODUCTION = """\
# The keys of a checkpoint's files

transformers and sentence-transformers read these keys. Each is honored, refused by name if its value would change
numbers, or changes nothing here. The list comes from the source of the installed libraries. A test fails for a key that
a new release reads and this page lacks.

With Torch and OpenVINO, transformers' own classes read config.json. With MLX, an option that its model files don't
compute is refused.
"""


def read_keys() -> dict[str, set[str]]:
    """Return the keys by file; the options of a step are under the name of its class."""
    library = _folder("sentence_transformers")
    models = [_parse(file) for file in sorted(library.glob("*/model.py"))]
    transformer = _parse(library / "base" / "modules" / "transformer.py")
    keys = {
        "modules.json": _read_from(models, "module_config"),
        "config_sentence_transformers.json": _read_from(models, "model_config")
        | _listed(models, "transformer_keys", "marker_keys"),
        "sentence_bert_config.json": _options(library, "Transformer") | _listed([transformer], "old_to_new"),
        "modality_config": _read_from([transformer], "modality_config", "params") - {"text", "message"},
        "config.json of a cross-encoder": _cross_encoder_keys(library),
        "tokenizer_config.json": _tokenizer_keys(_folder("transformers")),
    }
    return keys | {f"{kind}: config.json": _options(library, kind) for kind in MODULES}


def mlx_keys() -> dict[str, set[str]]:
    """Return, by model_type, the keys of config.json that transformers reads, and MLX's model files don't."""
    from transformers import CONFIG_MAPPING, PreTrainedConfig

    from nearfar.engines.mlx import network

    source = ROOT / "src" / "nearfar" / "engines" / "mlx"
    trees = [_parse(source / f"{name}.py") for name in ("architectures", "heads", "upstream")]
    honored = _read_from(trees, "config") | {
        str(keyword.arg)
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _name(node.func) == "require"
        for keyword in node.keywords
    }
    missing = {}
    for model_type in network.ARCHITECTURES:
        if model_type in CONFIG_MAPPING:
            config = CONFIG_MAPPING[model_type]
            read = {field.name for field in fields(config)} - {field.name for field in fields(PreTrainedConfig)}
            missing[model_type] = read - honored - _mlx_options(model_type)
    return missing


def _mlx_options(model_type: str) -> set[str]:
    """Return the options of mlx-embeddings' or mlx-lm's model file."""
    from nearfar.engines.mlx import upstream

    name = {"roberta": "xlm_roberta", "camembert": "xlm_roberta", "llama": "llama_bidirec"}.get(model_type, model_type)
    package = "mlx_lm" if model_type in {"qwen2", "qwen3", "gemma"} else "mlx_embeddings"
    module = upstream._import_model_file(name.replace("-", "_"), package)
    return {field.name for field in fields(module.ModelArgs)}


def decisions() -> dict[str, dict[str, Any]]:
    """Return our decisions by file: the lists ``honored`` and ``refused``, and the reasons of ``irrelevant``."""
    return tomllib.loads(KEYS_FILE.read_text(encoding="utf-8"))


def decided(decision: dict[str, Any]) -> set[str]:
    """Return all keys of a file that are decided."""
    return {key for part in decision.values() for key in part}


def page() -> str:
    """Return the manual's page."""
    lines = [_INTRODUCTION]
    for name, decision in decisions().items():
        lines += [f"## {name}\n", "| key | here |", "|---|---|"]
        rows = dict.fromkeys(decision.get("honored", ()), "honored")
        rows |= {key: f"refused: {reason}" for key, reason in decision.get("refused", {}).items()}
        rows |= decision.get("irrelevant", {})
        lines += [f"| `{key}` | {rows[key]} |" for key in sorted(rows)]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _cross_encoder_keys(library: Path) -> set[str]:
    tree = _parse(library / "cross_encoder" / "model.py")
    keys = _read_from([tree], "sentence_transformers")
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name("hasattr"), args=[ast.Name("config"), ast.Constant(value=str(key))]):
                keys.add(key)
    return keys


def _tokenizer_keys(library: Path) -> set[str]:
    """Return what the loaders and the constructors of the classes that we compare with take from the file."""
    from transformers import AutoTokenizer  # noqa: F401 — fills the table of classes
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    from nearfar.models.files.tokenizer import tokenizer_classes

    files = ("tokenization_utils_base", "tokenization_utils_tokenizers", "models/auto/tokenization_auto")
    functions = [
        node
        for file in files
        for node in ast.walk(_parse(library / f"{file}.py"))
        if isinstance(node, ast.FunctionDef) and node.name in _TOKENIZER_READERS
    ]
    keys = _read_from(functions, "kwargs", "init_kwargs", "tokenizer_config", "local_kwargs")
    for name in tokenizer_classes._CLASSES:
        constructor = tokenizer_class_from_name(name).__init__
        keys |= set(constructor.__code__.co_varnames[: constructor.__code__.co_argcount])
    return keys - {"self", "AutoTokenizer"}


def _options(library: Path, kind: str) -> set[str]:
    """Return the parameters of a step's constructor, its options in files, and the older names of these.

    Empty for a step that the installed version lacks.
    """
    keys: set[str] = set()
    for file in library.rglob("modules/*.py"):
        for node in ast.walk(_parse(file)):
            if isinstance(node, ast.ClassDef) and node.name == kind:
                keys |= _listed([node], "config_keys", "config_key_renames")
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
                        arguments = inner.args
                        keys |= {argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)}
    return keys - {"self"}


def _listed(trees: Iterable[ast.AST], *names: str) -> set[str]:
    """Return the strings of all lists, tuples and dictionaries that are assigned to names with one of these endings."""
    found: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(_name(target).lower().endswith(names) for target in targets):
                found |= {
                    part.value
                    for part in ast.walk(node.value)
                    if isinstance(part, ast.Constant) and isinstance(part.value, str)
                }
    return found


def _read_from(trees: Iterable[ast.AST], *names: str) -> set[str]:
    """Return the constant keys with which variables or attributes of these names are read."""
    return {key for tree in trees for node in ast.walk(tree) for name, key in _reads(node) if name in names}


def _reads(node: ast.AST) -> Iterator[tuple[str, str]]:
    match node:
        case ast.Subscript(value=value, slice=ast.Constant(value=str(key))):
            yield _name(value), key
        case ast.Call(func=ast.Attribute(value=value, attr="get" | "pop" | "setdefault"), args=[first, *_]):
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield _name(value), first.value
        case ast.Compare(left=ast.Constant(value=str(key)), ops=[ast.In() | ast.NotIn()], comparators=[value]):
            yield _name(value), key


def _name(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(value=value):
            return _name(value)
    return ""


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec
    assert spec.origin
    return Path(spec.origin).parent


def _parse(file: Path) -> ast.AST:
    return ast.parse(file.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
