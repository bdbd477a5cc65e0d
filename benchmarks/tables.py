"""`python -m benchmarks.tables [FILE ...]`: put the measured tables into documents, between their markers.

A table stands between `<!-- table: QUESTION -->` and `<!-- end -->`. `--check` changes nothing and fails where a
document is out of date.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import (
    accuracy,
    bench_mahalanobis,
    common,
    corruption,
    dense,
    false_alarms,
    fusion,
    learnt,
    mean_picture,
    methods,
    one_class,
    settings,
    storage,
    streaming,
    tiling,
    triton_backend,
)
from benchmarks.harness import RESULTS, Document
from benchmarks.peers import anomalib_padim

TABLES: Mapping[str, Callable[[Document], str]] = {
    module.QUESTION: module.table
    for module in (
        streaming,
        accuracy,
        false_alarms,
        settings,
        learnt,
        fusion,
        common,
        methods,
        mean_picture,
        one_class,
        corruption,
        dense,
        storage,
        triton_backend,
        tiling,
        anomalib_padim,
        bench_mahalanobis,
    )
}
_HERE = Path(__file__).parent
DOCUMENTS = (_HERE / "README.md", _HERE.parent / "docs" / "results.md", _HERE.parent / "kernels" / "README.md")
_MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(text: str, results: Path = RESULTS) -> str:
    """A document with its tables made anew; tables without results stay as they are."""

    def fill(match: re.Match[str]) -> str:
        path = results / f"{match[2]}.json"
        if not path.is_file():
            return match[0]
        document = json.loads(path.read_text())
        return f"{match[1]}{TABLES[match[2]](document)}\n\n{_caption(document)}\n{match[3]}"

    return _MARKED.sub(fill, text)


def main(arguments: list[str]) -> int:
    """Update or check documents."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("file", nargs="*", type=Path, default=DOCUMENTS)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a table is out of date")
    options = parser.parse_args(arguments)
    stale = [file for file in options.file if rendered(file.read_text()) != file.read_text()]
    for file in stale:
        print(f"{file}: {'out of date' if options.check else 'updated'}")
        if not options.check:
            file.write_text(rendered(file.read_text()))
    return 1 if options.check and stale else 0


def _caption(document: Document) -> str:
    """The machines and days of its runs; of the document itself where runs do not tell theirs."""
    runs = [run for row in document.get("rows", []) for run in row.get("runs", [])]
    environments = [run["environment"] for run in runs if "environment" in run] or [document["environment"]]
    machines = " and ".join(sorted({f"{each['cpu']}, {each['cores']} cores" for each in environments}))
    days = sorted({each["utc"][:10] for each in environments})
    versions = document["environment"]["versions"]
    named = ", ".join(f"{name} {versions[name]}" for name in ("onnxruntime", "openvino", "torch") if name in versions)
    return f"{machines}; {named}; {' to '.join(dict.fromkeys((days[0], days[-1])))}."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
