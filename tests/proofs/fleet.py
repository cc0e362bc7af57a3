"""Proof: a fleet on a real Dask cluster gives every account the right tables, whatever of the cluster is killed.

    python -m tests.proofs.fleet                                # 50 companies, 5 nights with kills, a dead scheduler
    python -m tests.proofs.fleet --only kills --companies 10 --nights 1
    python -m tests.proofs.fleet --only speed,scheduler,failures

Companies are sandboxes in other processes; scheduler and workers are processes too, and are killed with SIGKILL. Parts:

```
kills      a worker is killed at random, twice a night; the tables of all accounts equal their companies; at most two
           accounts a kill run again; no account is run by two at once; no sealed page is requested again
scheduler  the scheduler is killed once; the same command goes on, and runs no account again that was complete
failures   of the companies one has a wrong token, one no tokens left, one a server that hangs: all others are complete
store      accounts in an S3 server: every table right, on this disk and, once it is lost, on an empty one, which costs
           the requests of any other night
workers    one of the workers that --workers 2 starts is killed: as in kills, and afterwards no process is left
speed      the same accounts on one worker and on two, with a server that takes its time
small      many tiny commands: the scheduler's share of the time
```

Ends with 1 if anything is not so.
"""

# ruff: noqa: T201 - prints a report

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.fleet.dask import dask_cluster, kill
from tests.support.companies import serving_companies, write_fleet
from tests.support.fleets import Night, Sealed, Watch, kill_a_worker, wait_for_reading, wrong
from tests.support.object_store import serving_s3
from tests.support.proof import Proof
from tests.support.truth import COMPARED
from tests.support.world import clean_environment

PARTS = ("kills", "scheduler", "failures", "store", "workers", "speed", "small")
_THREADS = 2
_SHOWN = 10


class Report:
    """What was shown, and what was not."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.counts = Counter({"accounts": 0, "kills": 0, "checks": 0, "checks that failed": 0})

    def check(self, what: str, is_right: bool, details: object = "") -> None:
        print(
            f"  {'right' if is_right else 'WRONG'}: {what}{f': {details}' if details and not is_right else ''}",
            flush=True,
        )
        self.counts["checks"] += 1
        if not is_right:
            self.counts["checks that failed"] += 1
            self.failed.append(what)


Part = Callable[[Path, argparse.Namespace, Report], None]


def kills(folder: Path, options: argparse.Namespace, report: Report) -> None:
    """Nights in which a worker is killed, two times each."""
    for number in range(1, options.nights + 1):
        dice, began = random.Random(options.seed + number), time.monotonic()
        with (
            serving_companies(options.companies, 4, options.deals, latency_ms=300) as companies,
            dask_cluster(folder / f"dask{number}", 2, _THREADS) as cluster,
        ):
            projects = write_fleet(folder / f"night{number}", companies)
            sealed, hit = Sealed(projects, companies), 0
            with Watch(projects) as watch:
                night = Night(folder / f"night{number}", "--scheduler", cluster.address)
                for share in (dice.uniform(0.1, 0.4), dice.uniform(0.5, 0.8)):
                    reading = wait_for_reading(night, watch, companies, int(share * len(companies)))
                    time.sleep(dice.uniform(0, 0.3))
                    names = kill_a_worker(cluster.workers, watch, dice, reading)
                    sealed.remember(names)
                    hit += len(names)
                code, summary, stderr = night.wait()
            problems, refetched = wrong(projects, companies), sealed.refetched()
        print(f"night {number}: {time.monotonic() - began:.0f} s, 2 workers killed while they ran {hit} accounts;"
              f" {watch.runs_again()} ran again; {sealed.pages} pages were sealed then", flush=True)  # fmt: skip
        report.counts.update({"accounts": len(companies), "nights": 1, "kills": 2, "accounts killed": hit})
        report.counts.update(
            {"accounts that ran again": watch.runs_again(), "sealed pages fetched again": len(refetched)}
        )
        report.check(
            "every account is complete", code == 0 and len(summary["accounts"]) == len(companies), stderr[-500:]
        )
        report.check("every table equals its company's", not problems, problems[:_SHOWN])
        report.check("at most 2 accounts a kill ran again", watch.runs_again() <= 2 * 2, watch.runs_again())
        report.check("no account was run by two at once", not watch.overlaps, watch.overlaps[:_SHOWN])
        report.check("no sealed page was requested again", not refetched, refetched[:_SHOWN])


def scheduler(folder: Path, options: argparse.Namespace, report: Report) -> None:
    """A night in which the scheduler is killed, and the cluster started once more."""
    with (
        serving_companies(options.companies, 4, options.deals) as companies,
        dask_cluster(folder / "dask", 2, _THREADS) as cluster,
    ):
        projects = write_fleet(folder / "night", companies)
        with Watch(projects) as watch:
            night = Night(folder / "night", "--scheduler", cluster.address)
            while not night.is_over and len(night.ended) < len(companies) // 3:
                time.sleep(0.02)
            assert cluster.scheduler
            kill(cluster.scheduler)
            code, _, stderr = night.wait()
            complete = len(night.ended)
            report.check(
                "the client says that the scheduler is gone", code == 3 and "same command" in stderr, stderr[-500:]
            )
            for worker in cluster.workers:  # a supervisor would start them all again
                kill(worker)
            cluster.start_scheduler()
            for _ in range(2):
                cluster.start_worker(_THREADS)
            night = Night(folder / "night", "--scheduler", cluster.address)
            code, summary, stderr = night.wait()
        problems = wrong(projects, companies)
    print(f"{complete} accounts were complete when the scheduler was killed; {watch.runs_again()} ran again")
    report.counts.update({"accounts": len(companies), "kills": 1, "accounts that ran again": watch.runs_again()})
    report.check("the same command goes on", code == 0 and summary["continued"] == complete, stderr[-500:])
    report.check("only what was under way ran again", watch.runs_again() <= 2 * _THREADS, watch.runs_again())
    report.check("no account was run by two at once", not watch.overlaps, watch.overlaps[:_SHOWN])
    report.check("every table equals its company's", not problems, problems[:_SHOWN])


def failures(folder: Path, options: argparse.Namespace, report: Report) -> None:
    """One account with a wrong token, one without tokens, one whose server hangs."""
    with (
        serving_companies(10, 2, options.deals) as companies,
        dask_cluster(folder / "dask", 2, _THREADS) as cluster,
    ):
        projects = write_fleet(folder / "night", companies, 'timeout = "150s"')
        refused, spent, hangs, *others = companies
        (folder / "night" / "secrets" / refused).write_text("f" * 40)
        file = folder / "night" / "fleet.toml"
        file.write_text(file.read_text().replace(f"[accounts.{spent}]", f"[accounts.{spent}]\ndaily_tokens = 100"))
        companies[hangs].fault(kind="timeout", path="/", seconds=600.0)
        code, summary, _ = Night(folder / "night", "--scheduler", cluster.address).wait()
        problems = wrong({name: projects[name] for name in others}, companies)
    ends = {name: each["outcome"] for name, each in summary["accounts"].items()}
    report.counts["accounts"] += len(companies)
    report.check("the exit code is 4", code == 4, code)
    report.check(
        "each failure is reported, and the others are complete",
        ends == {refused: "refused", spent: "stopped", hangs: "failed", **dict.fromkeys(others, "complete")},
        ends,
    )
    report.check("every table of the others equals its company's", not problems, problems[:_SHOWN])


def store(folder: Path, options: argparse.Namespace, report: Report) -> None:
    """Three nights with a store; before the last one the disk of all workers is lost."""
    with (
        serving_s3() as s3,
        serving_companies(options.companies, 4, options.deals) as companies,
        dask_cluster(folder / "dask", 2, _THREADS, variables=s3.env) as cluster,
    ):
        place = f'store = "{s3.url}/fleet"\nendpoint = "{s3.endpoint}"'
        projects = write_fleet(folder / "night", companies, place)
        requests = []
        for number in (1, 2, 3):
            if number == 3:
                shutil.rmtree(folder / "night" / "accounts")
            before = {name: len(remote.log()) for name, remote in companies.items()}
            began = time.monotonic()
            code, summary, stderr = Night(folder / "night", "--scheduler", cluster.address, variables=s3.env).wait()
            print(f"night {number}: {time.monotonic() - began:.0f} s", flush=True)
            requests.append({name: len(remote.log()) - before[name] for name, remote in companies.items()})
            is_complete = code == 0 and len(summary["accounts"]) == len(companies)
            report.check(f"every account is complete in night {number}", is_complete, stderr[-500:])
        problems = wrong(projects, companies)
    report.counts.update({"accounts": len(companies), "nights": len(requests), "lost disks": 1})
    report.check("every table equals its company's, on a new disk", not problems, problems[:_SHOWN])
    report.check("a lost disk costs no request", requests[2] == requests[1], requests[1:])


def workers(folder: Path, options: argparse.Namespace, report: Report) -> None:
    """A night on two workers of its own, one of which is killed."""
    count, dice, began = min(options.companies, 12), random.Random(options.seed), time.monotonic()
    with serving_companies(count, 2, options.deals, latency_ms=300) as companies:
        projects = write_fleet(folder / "night", companies)
        sealed, started = Sealed(projects, companies), set[psutil.Process]()
        with Watch(projects) as watch:
            night = Night(folder / "night", "--workers", "2")
            reading = wait_for_reading(night, watch, companies, count // 4)
            started |= set(psutil.Process(night.process.pid).children(recursive=True))
            sealed.remember(kill_a_worker([night.process], watch, dice, reading))
            wait_for_reading(night, watch, companies, count // 2)
            started |= set(psutil.Process(night.process.pid).children(recursive=True))
            code, summary, stderr = night.wait()
        left = psutil.wait_procs(started, timeout=10)[1]
        problems, refetched = wrong(projects, companies), sealed.refetched()
    report.counts.update({"accounts": count, "kills": 1})
    print(f"{count} accounts in {time.monotonic() - began:.0f} s, 1 worker killed; {watch.runs_again()} ran again;"
          f" {sealed.pages} pages were sealed then", flush=True)  # fmt: skip
    report.check("every account is complete", code == 0 and len(summary["accounts"]) == count, stderr[-500:])
    report.check("every table equals its company's", not problems, problems[:_SHOWN])
    report.check("at most the account of the killed worker ran again", watch.runs_again() <= 1, watch.runs_again())
    report.check("no account was run by two at once", not watch.overlaps, watch.overlaps[:_SHOWN])
    report.check("no sealed page was requested again", not refetched, refetched[:_SHOWN])
    report.check("no process is left", not left, left)


def speed(folder: Path, options: argparse.Namespace, report: Report) -> None:
    """The same accounts on one worker and on two."""
    seconds = {}
    for workers in (1, 2):
        with (
            serving_companies(8, 2, options.deals, latency_ms=15_000) as companies,
            dask_cluster(folder / f"dask{workers}", workers, _THREADS) as cluster,
        ):
            write_fleet(folder / f"night{workers}", companies, streams=["pipelines"])  # little to do but to wait
            time.sleep(10)  # all workers are there
            code, summary, stderr = Night(folder / f"night{workers}", "--scheduler", cluster.address).wait()
            report.check(f"every account is complete on {workers}", code == 0, stderr[-500:])
            seconds[workers] = summary["seconds"]
    share = seconds[2] / seconds[1]
    report.counts["accounts"] += len(companies)
    print(f"8 accounts: {seconds[1]:.0f} s on 1 worker, {seconds[2]:.0f} s on 2: {share:.2f}")
    report.check("two workers take at most 0.6 of the time", share <= 0.6, share)


def small(folder: Path, options: argparse.Namespace, report: Report) -> None:
    """Two hundred tiny commands."""
    folder.mkdir()
    lines = "".join(f"[accounts.t{number:03}]\n" for number in range(options.tiny))
    (folder / "fleet.toml").write_text(lines)
    with dask_cluster(folder / "dask", 2, 4) as cluster:
        time.sleep(8)
        assert cluster.scheduler
        process = psutil.Process(cluster.scheduler.pid)
        before, began = process.cpu_times(), time.monotonic()
        place = ["--project", str(folder), "--scheduler", cluster.address]
        command = [sys.executable, "-m", "pdsync", "fleet", "run", *place, "--", "runs"]
        ran = subprocess.run(command, env=clean_environment(), capture_output=True, check=False)
        after, seconds = process.cpu_times(), time.monotonic() - began
        busy = (after.user + after.system - before.user - before.system) / seconds
    print(
        f"{options.tiny} tiny accounts in {seconds:.0f} s ({os.cpu_count()} cores); the scheduler was busy {busy:.1%}"
    )
    report.counts["accounts"] += options.tiny
    report.check("every account is complete", ran.returncode == 0, ran.stderr[-500:])
    report.check("the scheduler is no bottleneck: busy for less than a quarter of the time", busy < 0.25, busy)


def main() -> int:
    proof = Proof("tests.proofs.fleet", __doc__, title="Fleet")
    parser = proof.parser
    parser.add_argument("--companies", type=int, default=50)
    parser.add_argument("--nights", type=int, default=5)
    parser.add_argument("--deals", type=int, default=20)
    parser.add_argument("--tiny", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(PARTS))
    options = proof.options()
    report = Report()
    parts: dict[str, Part] = {
        "kills": kills, "scheduler": scheduler, "failures": failures, "store": store,
        "workers": workers, "speed": speed, "small": small,
    }  # fmt: skip
    for name in options.only.split(","):
        print(f"{name}:", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            parts[name](Path(folder) / name, options, report)
    print(f"{len(report.failed)} wrong" if report.failed else "all right")
    counts = {**report.counts, **COMPARED}
    return proof.end(passed=not report.failed, seeds=[options.seed], counts=counts)


if __name__ == "__main__":
    raise SystemExit(main())
