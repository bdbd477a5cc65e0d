"""What commands load when they are called: a module that has moved is found here, not by whoever types the command."""

import ast
from pathlib import Path

import engine.cli
import trainers


def loaded(source: str) -> set[str]:
    """The modules that `training(...)` is asked for, one by one or in a comprehension over their names."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "training":
            names |= texts(node.args[0])
        if isinstance(node, ast.comprehension):
            names |= texts(node.iter)
    return names


def texts(node: ast.expr) -> set[str]:
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    return {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def test_the_trainers_that_commands_load_are_there():
    sources = sorted(Path(engine.cli.__file__).parent.glob("*.py"))
    found = {
        (path.name, name)
        for path in sources
        if "lazy import training" in path.read_text()
        for name in loaded(path.read_text())
    }
    assert ("train.py", "registry") in found
    assert ("evaluate.py", "progress") in found
    assert [(path, name) for path, name in sorted(found) if missing(name)] == []


def missing(module: str) -> bool:
    path = Path(trainers.__file__).parent / module.replace(".", "/")
    return not (path.with_suffix(".py").is_file() or (path / "__init__.py").is_file())
