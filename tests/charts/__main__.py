"""Writes Vega from npm to the package, with licences and hashes, and compiles the specs of schemas/report.

`python -m tests.charts` needs node and npm; run it after a change of a spec. tests/runner/test_report_figures.py checks
that the compiled specs are of the present sources, and that the vendored files are unchanged.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPECS = ROOT / "schemas" / "report"
FOLDERS = (SPECS, SPECS / "fleet")
VENDOR = ROOT / "pdsync" / "runner" / "report" / "page" / "vendor"
PACKAGES = {"vega": "6.4.0", "vega-interpreter": "2.3.2", "vega-lite": "6.4.3"}
SCRIPTS = {"vega": "build/vega.min.js", "vega-interpreter": "build/vega-interpreter.js"}  # what the page contains


def main() -> None:
    """Update the vendored files and the compiled specs."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    if not (folder / "node_modules").exists():
        wanted = [f"{name}@{version}" for name, version in PACKAGES.items()]
        npm = shutil.which("npm") or "npm"
        subprocess.run([npm, "install", "--ignore-scripts", "--prefix", str(folder), *wanted], check=True)
    vendor(folder / "node_modules")
    node = shutil.which("node") or "node"
    compiler = str(Path(__file__).with_name("compile.mjs"))
    for specs in FOLDERS:
        subprocess.run([node, compiler, str(specs), str(SPECS / "config.json")], cwd=folder, check=True)


def vendor(modules: Path) -> None:
    """Copy the scripts and licences that the page needs, and write down where they are from."""
    rows = []
    for name, script in SCRIPTS.items():
        source = (modules / name / script).read_text(encoding="utf-8")
        path = VENDOR / Path(script).name
        path.write_text(as_plain_script(source), encoding="utf-8", newline="\n")
        shutil.copy(modules / name / "LICENSE", VENDOR / f"{name}.LICENSE")
        origin = hashlib.sha256(source.encode()).hexdigest()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append(f"| `{path.name}` | {name} {PACKAGES[name]}, `{script}` | BSD-3-Clause | `{origin}` | `{digest}` |")
    head = "| file | npm package | licence | sha256 there | sha256 here |\n|---|---|---|---|---|"
    (VENDOR / "README.md").write_text(
        "# Vega\n\nDraws the charts of `pdsync report`. `python -m tests.charts` writes this folder from npm. The\n"
        "interpreter is an ES module there, which a file opened from disk can't load: its import and export are\n"
        "plain statements here.\n\n" + "\n".join([head, *rows]) + "\n",
        encoding="utf-8",
    )


def as_plain_script(source: str) -> str:
    """The script without a reference to its source map; an ES module becomes a function that is called at once."""
    source = re.sub(r"\n//# sourceMappingURL=\S+\s*$", "\n", source)
    source, modules = re.subn(r"import (\{[^}]+\}) from 'vega-util';", r"const \1 = vega;", source)
    source = re.sub(r"export \{ (\w+) as (\w+) \};", r"vega.\2 = \1;", source)
    return f"(function () {{\n{source}}})();\n" if modules else source


if __name__ == "__main__":
    main()
