"""The vendor's own client for Node, pointed at the sandbox, finds nothing amiss."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .api import Api

CURRENT, BEFORE = "32.2.1", "30.8.1"  # the second still has v1's deals
SCRIPT = Path(__file__).with_name("node_client.cjs")


@pytest.fixture(scope="module")
def modules() -> Path:
    """A folder with both versions of the client, kept from run to run."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    home = Path(tempfile.gettempdir()) / f"pdsync-node-client-{CURRENT}-{BEFORE}"
    if not (home / "done").exists():
        home.mkdir(exist_ok=True)
        (home / "package.json").write_text("{}")
        packages = [f"pipedrive@{CURRENT}", f"pipedrive-before@npm:pipedrive@{BEFORE}"]
        command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", *packages]
        try:
            done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip("npm install took too long")
        if done.returncode:
            pytest.skip(f"npm install failed: {done.stderr[-300:]}")
        (home / "done").touch()
    return home


def test_the_vendors_client_reads_writes_and_merges(api: Api, modules: Path) -> None:
    live = {kind: api.live(kind) for kind in ("deals", "persons", "files", "users")}
    fields = [field.code for field in api.box.company.fields["deals"]]
    run = subprocess.run(
        ["node", str(SCRIPT), api.box.url, api.token],
        env={**os.environ, "NODE_PATH": str(modules / "node_modules")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    out = json.loads(run.stdout)

    assert out["dealsByCursor"] == out["dealsByOffset"] == live["deals"]
    assert out["personsByCursor"] == live["persons"]
    assert out["filesByOffset"] == live["files"]
    assert out["fieldsByCursor"] == fields
    assert out["users"] == len(live["users"])
    assert out["me"] == api.box.company.id

    assert out["got"]["title"] == "From Node 🚀"
    assert out["got"]["won_time"] == out["updated"]
    assert out["got"]["activities_count"] == 0
    assert out["deleted"] == {"id": out["added"]}
    assert out["merged"]["merge_what_id"] == out["loser"]
    assert out["gone"]["error"] == "requested person not found"
    assert out["merged"]["email"][0]["value"] == "1@node.example"
    assert (out["v1Updated"], out["v1Deleted"]) == ("By v1, again", out["v1Added"])
    assert out["v1Got"] == api.box.company.viewers["admin"].user_id

    effects = [(entry.kind, entry.id, entry.op) for entry in api.box.journal]
    winner = out["merged"]["id"]
    assert effects == [
        *(("deals", out["added"], op) for op in ("add", "update", "delete")),
        ("persons", out["loser"], "add"),
        ("persons", winner, "add"),
        ("persons", winner, "update"),
        ("persons", out["loser"], "merge"),
        *(("deals", out["v1Added"], op) for op in ("add", "update", "delete")),
    ]
    assert {seen.status for seen in api.box.log} == {200, 201, 404}
