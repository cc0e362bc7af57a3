"""Many made-up companies for tests of a fleet: sandboxes in a few processes, and a fleet.toml that names them.

    with serving_companies(50, processes=4, deals=20, latency_ms=0) as remotes:
        fleet = write_fleet(folder, remotes)

Each has a seed of its own, so no two have the same records.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING

from pdsync.sandbox import Fault, Limits, Sizes, generate_company, running
from tests.support.world import ROOT, STREAMS, Project, Remote, clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_PIPELINE = "proof"


@contextlib.contextmanager
def serving_companies(count: int, processes: int, deals: int, latency_ms: float = 0.0) -> Iterator[dict[str, Remote]]:
    """`count` companies by their names, served by `processes` processes."""
    started: list[subprocess.Popen[str]] = []
    try:
        for number in range(processes):
            seeds = [str(seed) for seed in range(1, count + 1) if seed % processes == number]
            command = [sys.executable, "-m", "tests.support.companies", str(deals), str(latency_ms), *seeds]
            started.append(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=clean_environment()
                )
            )
        companies: dict[str, Remote] = {}
        for process in started:
            assert process.stdout
            for seed, url, token in json.loads(process.stdout.readline()):
                companies[f"c{seed:03}"] = Remote(url, token)
        yield dict(sorted(companies.items()))
    finally:
        for process in started:
            process.communicate()  # a closed stdin ends it


def write_fleet(
    folder: Path, companies: dict[str, Remote], settings: str = "", streams: Sequence[str] = STREAMS
) -> dict[str, Project]:
    """Write a fleet.toml for `companies`, with tokens in files; returns the project of each account.

    Args:
        folder: of fleet.toml; it must not exist yet.
        companies: by the names of their accounts.
        settings: lines of [fleet].
        streams: what `fleet sync` reads.
    """
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700, parents=True)
    lines = ["[fleet]", settings, "[defaults]", 'token = "file:secrets/{name}"', f'pipeline = "{_PIPELINE}"',
             "burst = 0", "daily_tokens = 0"]  # fmt: skip
    projects = {}
    for name, remote in companies.items():
        (secrets / name).write_text(remote.token)
        (secrets / name).chmod(0o600)
        lines += [f"[accounts.{name}]", f'base_url = "{remote.url}"']
        projects[name] = Project(folder / "accounts" / name, remote)
        pipelines = projects[name].folder / "pipelines"
        pipelines.mkdir()
        names = json.dumps(list(streams))
        (pipelines / f"{_PIPELINE}.toml").write_text(f'description = "Of the proof"\nstreams = {names}\n')
    (folder / "fleet.toml").write_text("\n".join(lines) + "\n")
    return projects


def _serve(deals: int, latency_ms: float, seeds: list[int]) -> None:
    with contextlib.ExitStack() as stack:
        addresses = []
        for seed in seeds:
            company = generate_company(seed=seed, sizes=Sizes(deals=deals))
            box = stack.enter_context(running(company, limits=Limits(burst=None, daily_tokens=None)))
            if latency_ms:
                box.faults.add(Fault(kind="latency", ms=latency_ms))
            addresses.append((seed, box.url, box.token))
        sys.stdout.write(json.dumps(addresses) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    _serve(int(sys.argv[1]), float(sys.argv[2]), [int(seed) for seed in sys.argv[3:]])
