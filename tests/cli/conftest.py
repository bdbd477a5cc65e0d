"""Commands as a person types them, run in this process."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from engine.cli import main


class Done(NamedTuple):
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys):
    """Run a command: exit status, stdout, stderr."""

    def run(*arguments):
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return Done(status, *capsys.readouterr())

    return run
