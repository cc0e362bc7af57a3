"""A warehouse made by the DuckDB that pdsync brings opens in the oldest one that the contract names."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import duckdb
import pytest

from .kit import Work, record

OLD = "1.5.5"
READ = """
import duckdb, json, sys
c = duckdb.connect(sys.argv[1], read_only=True)
rows = c.execute(
    "SELECT id, name, label_ids, (_valid_to IS NULL) FROM history.things ORDER BY id, _valid_from"
).fetchall()
views = [c.execute(f'SELECT count(*) FROM {v}').fetchall()[0][0] for v in ("history.things", "meta.checkpoints")]
print(json.dumps([duckdb.__version__, rows, views]))
"""


@pytest.fixture(scope="module")
def old_python() -> Path:
    """An interpreter with the old DuckDB, made once a machine and kept in the folder for temporary files."""
    folder = Path(tempfile.gettempdir()) / f"pdsync-duckdb-{OLD}-py{sys.version_info.major}{sys.version_info.minor}"
    python = folder / "bin" / "python"
    told = (
        subprocess.run([python, "-c", "import duckdb"], capture_output=True, check=False) if python.exists() else None
    )
    if told is None or told.returncode:
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--only-binary=:all:", "--retries=0", "--timeout=10"]
        made = subprocess.run([*pip, f"duckdb=={OLD}", "pytz"], capture_output=True, text=True, check=False, timeout=90)
        if made.returncode:
            pytest.skip(f"DuckDB {OLD} can't be had here: {made.stderr.strip()[-200:]}")
    return python


def test_a_warehouse_opens_read_only_in_the_oldest_duckdb(old_python: Path, tmp_path: Path) -> None:
    work = Work(tmp_path / "warehouse.duckdb")
    work.commit([record(1, "a", 1, label_ids=[3, 4]), record(2, "ü", 1)], 2)
    work.commit([record(1, "b", 5)], 6, since=0)
    work.connection.execute("CHECKPOINT warehouse")
    work.close()

    run = subprocess.run(
        [old_python, "-c", READ, str(work.path)], capture_output=True, text=True, check=False, timeout=60
    )

    assert run.returncode == 0, run.stderr
    version, rows, views = json.loads(run.stdout)
    assert version == OLD
    assert rows == [[1, "a", [3, 4], False], [1, "b", [], True], [2, "ü", [], True]]
    assert views == [3, 1]


def test_the_old_duckdb_stages_and_commits_as_the_new_one_does(old_python: Path, tmp_path: Path) -> None:
    """The loader's own SQL, carried out by the oldest DuckDB: its library comes first on the path, the rest is ours."""
    code = """
import sys; sys.path.append(sys.argv[2])
import duckdb, json
from pathlib import Path
from tests.load.kit import Work, record
work = Work(Path(sys.argv[1]))
first = work.commit([record(1, "a", 1, label_ids=[3], new={"x": [1.5]}), {"name": "no key"}, record(2, "{", 1)], 2)
again = work.commit([record(1, "a", 1, label_ids=[3], new={"x": [1.5]})], 3)
other = work.commit([record(1, "b", 4, label_ids="x", is_deleted=True)], 5, since=0)
rows = work.rows(
    "SELECT id, name, label_ids, _extra, _deleted_at IS NULL, _valid_to IS NULL FROM history.things"
    " ORDER BY id, _valid_from"
)
work.close()
print(json.dumps([duckdb.__version__, [first.inserted, first.quarantined, again.unchanged, other.deleted], rows]))
"""
    found = []
    here = str(Path(__file__).parents[2])
    site = str(Path(duckdb.__file__).parents[1])
    for number, python in enumerate((str(old_python), sys.executable)):
        path = str(tmp_path / f"{number}.duckdb")
        run = subprocess.run(
            [python, "-c", f"import sys; sys.path.insert(0, {here!r})\n" + code, path, site],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        found.append(json.loads(run.stdout))
    assert [version for version, *_ in found] == [OLD, duckdb.__version__]
    assert found[0][1:] == found[1][1:]
    assert found[1][1] == [2, 1, 1, 1]
