"""The servers that nearfar is compared with: packages, patches, commands.

All serve the same all-MiniLM-L6-v2 on the CPU, offline, without telemetry and without request logs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from harness.launcher import BENCHMARKS, LaunchSpec

HERE = Path(__file__).parent
PEERS_DIR = BENCHMARKS / ".peers"
_QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "TRANSFORMERS_OFFLINE": "1",
}


@dataclass(frozen=True)
class Patch:
    """A replacement in an installed package's file, without which the peer doesn't start."""

    file: str  # relative to site-packages
    old: str
    new: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A server to compare with. ``{bin}``, ``{model}``, ``{onnx}`` and ``{port}`` are replaced when it starts."""

    name: str
    venv: str
    requirements: tuple[str, ...]
    command: tuple[str, ...]
    without_dependencies: tuple[str, ...] = ()  # installed even on a Python version that they exclude
    environment: dict[str, str] = field(default_factory=dict)
    patches: tuple[Patch, ...] = ()
    needs_onnx: bool = False  # the model exported by the peer's own tools
    has_rerank: bool = True
    scores_are_cosines: bool = False
    note: str = ""

    @property
    def bin(self) -> Path:
        """Return the folder of its executables."""
        return PEERS_DIR / self.venv / "bin"

    @property
    def onnx(self) -> Path:
        """Return the folder of its ONNX export."""
        return PEERS_DIR / f"{self.venv}-onnx"

    def launch_spec(self, model: str) -> LaunchSpec:
        """Return how to start it with the model in this folder."""
        values = {"{bin}": str(self.bin), "{model}": model, "{onnx}": str(self.onnx), "{here}": str(HERE)}
        return LaunchSpec(
            command=tuple(_replaced(part, values) for part in self.command),
            environment=_QUIET | {name: _replaced(value, values) for name, value in self.environment.items()},
            rerank_path="/v2/rerank" if self.has_rerank else "",
            model="all-MiniLM-L6-v2",
            scores_are_cosines=self.scores_are_cosines,
        )


def _replaced(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


_INFINITY = (
    "infinity-emb[server,torch,optimum]==0.0.78",
    "optimum-onnx==0.1.0",
    "sentence-transformers<4",  # its own pin, repeated so that a newer release changes nothing
    "transformers<5",
)
_INFINITY_COMMAND = (
    *("{bin}/infinity_emb", "v2", "--host", "127.0.0.1", "--port", "{port}", "--url-prefix", "/v1"),
    *("--served-model-name", "all-MiniLM-L6-v2", "--device", "cpu", "--no-bettertransformer"),
    *("--log-level", "warning"),
)
_NO_RERANK = "its rerank endpoint takes cross-encoders only"

PEERS = (
    Peer(
        name="fastapi-st",
        venv="fastapi-st",
        requirements=("fastapi", "sentence-transformers>=6,<7", "uvicorn[standard]"),
        command=("{bin}/python", "{here}/fastapi_app.py", "{model}", "{port}"),
    ),
    Peer(
        name="infinity-torch",
        venv="infinity",
        requirements=_INFINITY,
        command=(*_INFINITY_COMMAND, "--engine", "torch", "--model-id", "{model}"),
        has_rerank=False,
        note=_NO_RERANK,
    ),
    Peer(
        name="infinity-onnx",
        venv="infinity",
        requirements=_INFINITY,
        command=(*_INFINITY_COMMAND, "--engine", "optimum", "--model-id", "{onnx}", "--pooling-method", "mean"),
        patches=(
            Patch(
                "infinity_emb/transformer/embedder/optimum.py",
                "file_name=onnx_file.as_posix(),",
                "file_name=onnx_file.name,",
                "optimum expects a name relative to the folder; with the whole path the server exits",
            ),
            Patch(
                "infinity_emb/transformer/utils_optimum.py",
                "            optimize_with_onnxruntime_only=False,\n",
                "",
                "optimum has removed the option; the graph would stay unoptimized and be slower",
            ),
        ),
        needs_onnx=True,
        has_rerank=False,
        note=_NO_RERANK,
    ),
    Peer(
        name="embed-rerank",
        venv="embed-rerank",
        requirements=(
            *("fastapi", "httpx", "numpy", "prometheus-client", "psutil", "pydantic", "pydantic-settings"),
            *("python-dotenv", "python-multipart", "sentence-transformers>=6,<7", "structlog", "uvicorn[standard]"),
        ),
        without_dependencies=("embed-rerank==1.5.1",),  # requires 3.13, runs on 3.11
        command=("{bin}/embed-rerank", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "WARNING"),
        environment={"BACKEND": "torch", "MODEL_NAME": "{model}"},
        scores_are_cosines=True,
        note="its scores are cosines",
    ),
)
