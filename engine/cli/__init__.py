"""The `engine` command: one file per command, errors as one line with the documented exit codes."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

import typer

from engine.cli.audit import audit
from engine.cli.bench import bench
from engine.cli.console import fail
from engine.cli.demo import demo
from engine.cli.doctor import doctor
from engine.cli.evaluate import evaluate
from engine.cli.explain import explain
from engine.cli.export import export
from engine.cli.fuse import fuse
from engine.cli.protocol import protocol
from engine.cli.publish import publish, rollback
from engine.cli.push import push
from engine.cli.replay import replay
from engine.cli.serve import serve
from engine.cli.train import train
from engine.cli.triton import triton
from engine.errors import EngineError, UsageError

__all__ = ["app", "main"]

app = typer.Typer(
    name="engine",
    help="Streaming visual anomaly detection, trained on good images only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo)
app.command()(train)
app.command()(fuse)
app.command(name="eval")(evaluate)
app.command()(explain)
app.command()(protocol)
app.command()(export)
app.command()(serve)
app.command()(publish)
app.command()(rollback)
app.command()(push)
app.command()(audit)
app.command()(replay)
app.command()(bench)
app.command()(doctor)
app.add_typer(triton)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command (None: of this process): 0 on success, 2 on wrong usage or input, 1 on failure."""
    try:
        status = app(arguments, standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        fail(f"{_told(error)}; check the path, its permissions and the room on its disk")
        return 1
    except UsageError as error:
        fail(str(error))
        return 2
    except EngineError as error:
        fail(str(error))
        return 1
    except (typer.Abort, KeyboardInterrupt):
        fail("interrupted")
        return 130
    except typer.TyperException as error:  # wrong options and arguments
        describe = getattr(error, "format_message", error.__str__)
        fail(f"{describe() or 'no command was given'} (see `engine --help`)")
        return 2
    return status if isinstance(status, int) else 0


def _told(error: OSError) -> str:
    """A system's error with its files, where it names any; of a folder that was copied, the first of its errors."""
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        _, target, why = error.args[0][0]
        return f"{target}: {why}"
    named = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return f"{named or 'reading or writing failed'}: {error.strerror or error}"
