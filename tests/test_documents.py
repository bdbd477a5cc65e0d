"""What the documents tell people to type and to import works as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from typer.testing import CliRunner

from engine.cli import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "kernels" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(path: Path, language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(path.read_text()) if found == language]


def commands() -> list[list[str]]:
    """Every `engine ...` line of the documents' plain blocks, as words."""
    lines = [line for path in DOCUMENTS for text in blocks(path, "") for line in text.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("engine ")]


def name_of(words: list[str]) -> str:
    """The command's name: of two words in a group."""
    return " ".join(words[1:3] if words[1] == "triton" else words[1:2])


def run(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """The help of every command that a document names."""
    names = {name_of(words) for words in commands()}
    found = {name: CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "300"}) for name in names}
    assert not any(result.exit_code for result in found.values())
    return {name: result.output for name, result in found.items()}


def test_every_command_and_flag_exists(helps):
    assert len(helps) >= 4
    for words in commands():
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert not {flag for flag in flags if flag not in helps[name_of(words)]}, words


def test_the_library_snippet_judges_pictures(tiny, pictures, tmp_path):
    shutil.copytree(tiny.path, tmp_path / "models" / "part")
    for name, picture in zip(("a.png", "b.png"), pictures, strict=False):
        cv2.imwrite(str(tmp_path / name), picture)
    (snippet,) = [text for text in blocks(ROOT / "README.md", "python") if "engine.load" in text]
    assert len(run(snippet, tmp_path).splitlines()) == 2


def test_the_reader_snippet_prints_results(line, make_config, run_burst, tmp_path):
    own = line.beside("line1")
    own.push(20)
    run_burst(make_config(own))
    (snippet,) = [text for text in blocks(ROOT / "README.md", "python") if "import redis" in text]
    assert "redis.Redis()" in snippet
    assert '"engine:{line1}:results"' in snippet
    here = snippet.replace("redis.Redis()", f"redis.Redis.from_url({line.url!r})")
    assert run(here.replace("engine:{line1}", f"{line.prefix}:{{line1}}"), tmp_path).startswith("cam1 ")


def test_the_kernel_snippet_runs(tmp_path):
    snippet = blocks(ROOT / "kernels" / "README.md", "python")[0]
    run(snippet, tmp_path)
    assert (tmp_path / "gaussian.safetensors").is_file()


def test_links_lead_to_files():
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
