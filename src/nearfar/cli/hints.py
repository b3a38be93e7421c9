"""Commands and options of similar programs, and what to use here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

COMMANDS = {
    "version": "use nearfar --version",
    "list": "nearfar models lists the models on this disk",
    "ls": "nearfar models lists the models on this disk",
    "ps": "nearfar service status shows the service, and GET /info the models of a running server",
    "info": "nearfar models lists the models on this disk, and GET /info those of a running server",
    "run": "nearfar serve MODEL serves a model, and nearfar check MODEL tries it",
    "run-batch": "use nearfar batch IN OUT",
    "up": "nearfar serve starts a server, and nearfar service install a service",
    "start": "nearfar serve starts a server, and nearfar service install a service",
    "stop": "press Ctrl-C where nearfar serve runs; nearfar service uninstall stops a service",
    "download": "use nearfar pull MODEL",
    "rm": "delete the model's folder in the hub's cache; nearfar models lists it",
    "show": "nearfar check MODEL prints what a model is",
    "test": "nearfar check MODEL loads a model and tries it",
    "bench": "nearfar check MODEL prints a model's speed",
    "benchmark": "nearfar check MODEL prints a model's speed",
    "status": "use nearfar service status, or GET /health/ready of a running server",
    "restart": "use nearfar service restart",
    "reload": "send SIGHUP to the server; nearfar service restart also reads variables again",
    "logs": "use nearfar service logs",
    "login": "set HF_TOKEN to the hub's token; clients' keys are made by nearfar keys new",
    "update": "pip install --upgrade nearfar",
    "upgrade": "pip install --upgrade nearfar",
    "config": "nearfar docs configuration has all settings, and nearfar example development a file to start from",
    "help": "use nearfar --help, or nearfar docs for the manual",
}
SERVICE_COMMANDS = {
    "start": "nearfar service install starts it, and nearfar service restart starts it again",
    "stop": "nearfar service uninstall stops and removes it",
    "enable": "nearfar service install starts it at every login; with --system, at every boot",
    "disable": "nearfar service uninstall stops and removes it",
    "reload": "use nearfar service restart",
    "remove": "use nearfar service uninstall",
}
_LEVELS = "the log has one level; --log-format chooses its form"
_LENGTH = "set max_tokens of the model in a settings file"
_MODEL = "name the model without an option: nearfar serve MODEL"
OPTIONS = {
    "--gpu": "use --device cuda, or mps on a Mac",
    "--cuda": "use --device cuda",
    "--cpu": "use --device cpu",
    "--model-id": _MODEL,
    "--model-name": _MODEL,
    "--model-name-or-path": _MODEL,
    "--revision": "name it with the model: nearfar serve OWNER/MODEL@REVISION",
    "--served-model-name": "set aliases of the model in a settings file",
    "--trust-remote-code": "a model's own code is never run",
    "--log-level": _LEVELS,
    "--verbose": _LEVELS,
    "--debug": _LEVELS,
    "-v": _LEVELS,
    "-p": "use --port",
    "-m": _MODEL,
    "--listen": "use --host and --port",
    "--bind": "use --host and --port",
    "--models": _MODEL,
    "--max-model-len": _LENGTH,
    "--max-length": _LENGTH,
    "--max-input-length": _LENGTH,
    "--max-client-batch-size": "large requests are split here; NEARFAR_MAX_INPUTS bounds them",
    "--max-batch-tokens": "set NEARFAR_BATCH_TOKENS",
    "--max-num-batched-tokens": "set NEARFAR_BATCH_TOKENS",
    "--max-concurrent-requests": "set NEARFAR_QUEUE_REQUESTS",
    "--batch-size": "batches are counted in tokens: set NEARFAR_BATCH_TOKENS",
    "--auto-truncate": "use --on-overflow truncate, which is the default",
    "--gpu-memory-utilization": "use --memory-budget, which limits the weights",
    "--tensor-parallel-size": "a model runs on one device",
    "--pooling": "pooling is read from the model's files; nearfar check MODEL shows it",
    "--quantization": "use --dtype int8, or auto",
    "--task": "set task of the model in a settings file",
    "--runner": "set task of the model in a settings file",
    "--url-prefix": "set NEARFAR_ROOT_PATH; routes exist with and without /v1",
    "--hostname": "use --host",
    "--hf-token": "set HF_TOKEN",
    "--hf-api-token": "set HF_TOKEN",
    "--huggingface-hub-cache": "set HF_HOME",
    "--download-dir": "set HF_HOME",
    "--reload": "send SIGHUP to the server to read settings, keys and models again",
}


class HintingGroup(click.Group):
    """Subcommands, with ``hints`` for those that other programs have."""

    hints: Mapping[str, str] = COMMANDS

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand. Raises UsageError with a hint for one that other programs have."""
        if args and args[0] in self.hints:
            raise click.UsageError(f"No such command '{args[0]}': {self.hints[args[0]]}.", ctx)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options before a subcommand. Raises UsageError for one that belongs after ``serve``."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = error.option_name
            if name in {"-v", "-V"}:
                raise click.UsageError(f"No such option '{name}': use nearfar --version.", ctx) from error
            if "serve" in self.commands:
                raise click.UsageError(
                    f"No such option '{name}': options follow a command, as in nearfar serve {name}.", ctx
                ) from error
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand. Raises UsageError with a hint for an option that other programs have."""
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            if error.option_name not in OPTIONS:
                raise
            raise click.UsageError(
                f"No such option '{error.option_name}': {OPTIONS[error.option_name]}.", error.ctx
            ) from error


class ServiceGroup(HintingGroup):
    """The subcommands of ``nearfar service``."""

    hints = SERVICE_COMMANDS
