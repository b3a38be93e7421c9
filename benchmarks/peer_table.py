"""The servers that ours is compared with: what each needs installed, how it is mended, how it is started.

All serve the same folder of all-MiniLM-L6-v2 on this machine's processor, ask no hub, send no statistics, and log no
requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from launch import Recipe

PEERS = Path(__file__).parent / ".peers"
_QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "TRANSFORMERS_OFFLINE": "1",
}


@dataclass(frozen=True)
class Patch:
    """A text in a file of an installed package, and what stands in its place for the peer to start."""

    file: str  # below site-packages
    old: str
    new: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A server to compare with. ``{bin}``, ``{model}``, ``{onnx}`` and ``{port}`` are filled in when it is started."""

    name: str
    venv: str
    requirements: tuple[str, ...]
    command: tuple[str, ...]
    without_dependencies: tuple[str, ...] = ()  # and whatever Python they say they need
    environment: dict[str, str] = field(default_factory=dict)
    patches: tuple[Patch, ...] = ()
    needs_onnx: bool = False  # an export of the model, made by the peer's own tools
    has_rerank: bool = True
    has_plain_cosines: bool = False  # for scores
    note: str = ""

    @property
    def bin(self) -> Path:
        """Where its programs are."""
        return PEERS / self.venv / "bin"

    @property
    def onnx(self) -> Path:
        """Where its export of the model is."""
        return PEERS / f"{self.venv}-onnx"

    def recipe(self, model: str) -> Recipe:
        """Say how it is started on the model in this folder."""
        places = {"{bin}": str(self.bin), "{model}": model, "{onnx}": str(self.onnx), "{here}": str(PEERS.parent)}
        return Recipe(
            command=tuple(_filled(part, places) for part in self.command),
            environment=_QUIET | {name: _filled(value, places) for name, value in self.environment.items()},
            rerank_path="/v2/rerank" if self.has_rerank else "",
            model="all-MiniLM-L6-v2",
            has_plain_cosines=self.has_plain_cosines,
        )


def _filled(text: str, places: dict[str, str]) -> str:
    for place, value in places.items():
        text = text.replace(place, value)
    return text


_INFINITY = (
    "infinity-emb[server,torch,optimum]==0.0.78",
    "optimum-onnx==0.1.0",
    "sentence-transformers<4",  # older is what it pins itself; said so that a newer release changes nothing
    "transformers<5",
)
_INFINITY_COMMAND = (
    *("{bin}/infinity_emb", "v2", "--host", "127.0.0.1", "--port", "{port}", "--url-prefix", "/v1"),
    *("--served-model-name", "all-MiniLM-L6-v2", "--device", "cpu", "--no-bettertransformer"),
    *("--log-level", "warning"),
)
_NO_RERANK = "its rerank takes cross-encoders only"

ALL = (
    Peer(
        name="fastapi-st",
        venv="fastapi-st",
        requirements=("fastapi", "sentence-transformers>=6,<7", "uvicorn[standard]"),
        command=("{bin}/python", "{here}/peer_fastapi.py", "{model}", "{port}"),
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
                "optimum takes a name within the folder; the whole path isn't found and the server ends",
            ),
            Patch(
                "infinity_emb/transformer/utils_optimum.py",
                "            optimize_with_onnxruntime_only=False,\n",
                "",
                "optimum no longer knows the option; the graph would go unoptimised and be slower",
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
        without_dependencies=("embed-rerank==1.5.1",),  # says 3.13, runs on 3.11
        command=("{bin}/embed-rerank", "--host", "127.0.0.1", "--port", "{port}", "--log-level", "WARNING"),
        environment={"BACKEND": "torch", "MODEL_NAME": "{model}"},
        has_plain_cosines=True,
        note="its scores are plain cosines",
    ),
)
