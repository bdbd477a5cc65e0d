"""`engine triton`: a local tritonserver on a repository that `engine export --target triton` made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.cli import console
from engine.contract import DETECTOR_MODEL
from engine.triton.publish import roll_back
from engine.triton.repository import Repository
from engine.triton.server import Running, Server

triton = typer.Typer(name="triton", help="A local tritonserver on an exported repository.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="REPO", help="A folder made by `engine export --target triton`.")]
Port = Annotated[int, typer.Option(help="0: Triton's usual one where it is free, else any.", min=0, max=65535)]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


@triton.command()
def up(repo: Folder, http_port: Port = 0, grpc_port: Port = 0, metrics_port: Port = 0, json: Json = False) -> None:
    """Start a server and return when it is ready; it runs on by itself and logs to a file."""
    server = Server(Repository(repo))
    _show(_described(server.up((http_port, grpc_port, metrics_port)), server), json)


@triton.command()
def down(repo: Folder, json: Json = False) -> None:
    """End the server, finishing the requests in it, and remove all that it leaves."""
    ended = Server(Repository(repo)).down()
    _show({"repository": str(repo.resolve()), "ended": ended}, json)


@triton.command()
def status(repo: Folder, json: Json = False) -> None:
    """Where the server answers and what it serves; exit 1 where none is ready."""
    server = Server(Repository(repo))
    server.repository.require()
    running = server.running()
    document = _none(server) if running is None else _described(running, server)
    _show(document, json)
    if not document["ready"]:
        raise typer.Exit(1)


@triton.command()
def rollback(repo: Folder, json: Json = False) -> None:
    """Serve the version before the current one again, at once where a server runs; a second time goes forth again."""
    done = roll_back(Repository(repo))
    _show({"version": done.version, "model": done.model, "loaded": done.loaded}, json)


def _described(running: Running, server: Server) -> dict[str, Any]:
    repository = server.repository
    return {
        "ready": running.control.ready(DETECTOR_MODEL),
        "grpc": running.grpc,
        "http": running.http,
        "metrics": running.metrics,
        "pid": running.pid,
        "log": running.log,
        "server": running.what,
        **_versions(repository),
    }


def _none(server: Server) -> dict[str, Any]:
    nothing = dict.fromkeys(("grpc", "http", "metrics", "pid", "log", "server"))
    return {"ready": False, **nothing, **_versions(server.repository)}


def _versions(repository: Repository) -> dict[str, Any]:
    """The version that is served and those that lie beside it, as Triton numbers them."""
    models = {str(number): version.manifest.model for number, version in repository.versions().items()}
    return {"repository": str(repository.path), "version": repository.current, "versions": models}


def _show(document: dict[str, Any], json: bool) -> None:
    if json:
        console.print_json(document)
        return
    for key, value in document.items():
        console.say(f"{key}: {value}")
