"""Live progress fits the screen: streams under way, the others counted, totals, and a share only where it is known."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from pdsync.cli.app import App
from pdsync.cli.progress import Expected, Progress
from pdsync.model import StreamReceipt
from pdsync.runner.session import Event
from tests.cli.test_tables import on_screen

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = [f"stream_{number:02}" for number in range(82)]
BEFORE_THE_END = {
    80: """\
  stream                                        requests    rows  tokens  rows/s
✓ persons                                              2    1000      20     100
… deals                                               12    6000     120     300
… a_very_long_name_of_a_stream_that_is_cut_wh…         1  12,345       2     617
65 % done, 8 requests and 65 tokens left, about 11 s.
Streams: 1 done, 2 under way, 1 waiting
19,345 rows, 15 requests, 142 tokens in 20 s
""",
    120: """\
  stream                                                     requests    rows  tokens  rows/s
✓ persons                                                           2    1000      20     100
… deals                                                            12    6000     120     300
… a_very_long_name_of_a_stream_that_is_cut_where_it_must_be         1  12,345       2     617
65 % done, 8 requests and 65 tokens left, about 11 s. Streams: 1 done, 2 under way, 1 waiting
19,345 rows, 15 requests, 142 tokens in 20 s
""",
}
LONG = "a_very_long_name_of_a_stream_that_is_cut_where_it_must_be"


class Run:
    """A run whose time stands still."""

    def __init__(self, expected: Mapping[str, Expected] | None = None) -> None:
        self.now = 100.0
        self.progress = Progress(App(), expected, lambda: self.now)

    def on(self, kind: str, *names: str, requests: int = 1, rows: int = 10, tokens: int = 10) -> None:
        for name in names:
            self.progress(Event(kind, name, StreamReceipt(requests=requests, read=rows, tokens=tokens)))

    def screen(self, width: int = 80, height: int = 24) -> list[str]:
        return [line.text for line in self.progress.lay_out(width, height)]


@pytest.fixture
def run() -> Run:
    """Near its end: one stream is done, two are under way, one waits."""
    expected = {"persons": (3, 30), "deals": (18, 180), LONG: (2, 7)}
    run = Run({**{name: Expected(n, tokens=tokens) for name, (n, tokens) in expected.items()}, "notes": Expected(1)})
    run.on("selected", "persons", "deals", LONG, "notes", requests=0, rows=0, tokens=0)
    run.on("started", "persons", "deals", LONG, requests=0, rows=0, tokens=0)
    run.now += 10
    run.on("finished", "persons", requests=2, rows=1_000, tokens=20)
    run.now += 10
    run.on("page", "deals", requests=12, rows=6_000, tokens=120)
    run.on("page", LONG, requests=1, rows=12_345, tokens=2)
    return run


@pytest.mark.parametrize("width", [80, 120])
def test_the_streams_under_way_the_totals_and_the_share_done_are_shown(run: Run, width: int) -> None:
    assert "\n".join(run.screen(width)) + "\n" == BEFORE_THE_END[width]


@pytest.mark.parametrize("under_way", [0, 1, 20, 82])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 10), (20, 3), (200, 100)])
def test_no_frame_is_taller_or_wider_than_the_screen(width: int, height: int, under_way: int) -> None:
    run = Run({name: Expected(1_000_000) for name in NAMES})
    run.on("selected", *NAMES, requests=0, rows=0)
    run.on("started", *NAMES, requests=0, rows=0)
    run.on("finished", *NAMES[under_way:], rows=10**9)
    run.now += 5_000
    run.on("page", *NAMES[:under_way], requests=12_345, rows=10**9, tokens=10**6)
    lines = run.screen(width, height)
    assert 0 < len(lines) < height
    assert max(map(len, lines)) <= width
    if width >= 80:
        assert f"{82 - under_way} done" in " ".join(lines) or under_way == 0
        assert len(lines) >= min(under_way + 3, height - 1)


def test_the_rate_of_a_stream_that_has_ended_stays(run: Run) -> None:
    before = run.screen()[1]
    run.now += 1_000
    assert run.screen()[1] == before
    assert run.screen()[2].endswith(" 6")  # 6,000 rows of a stream that still runs


def test_without_a_known_size_there_is_a_lower_bound_and_no_share() -> None:
    run = Run({"deals": Expected(1, at_least=True), "users": Expected(4)})
    run.on("started", "deals", "users")
    run.now += 10
    assert run.screen()[-2].startswith("At least 4 more requests. Streams: 0 done, 2 under way")
    run.on("finished", "deals", requests=30)
    assert run.screen(100)[-2].startswith("91 % done, 3 requests left, about a second. Streams: 1 done, 1 under way")
    other = Run()
    other.on("started", "deals")
    assert other.screen()[-2] == "Streams: 0 done, 1 under way, 0 waiting"


def test_more_requests_than_expected_never_make_it_complete() -> None:
    run = Run({"deals": Expected(2)})
    run.on("started", "deals", requests=500)
    assert run.screen()[-2].startswith("99 % done")
    run.on("finished", "deals", requests=500)
    assert run.screen()[-2] == "Every stream is read; finishing the tables"


def test_a_job_without_requests_counts_the_rows_it_loads() -> None:
    run = Run()
    run.progress(Event("started", "deals", StreamReceipt(inserted=40, unchanged=2)))
    run.now += 2
    assert run.screen()[1].split() == ["…", "deals", "42", "21"]
    assert run.screen()[-1] == "42 rows in 2 s"


def test_a_job_without_requests_shows_the_share_of_its_rows() -> None:
    run = Run({"deals": Expected(0, rows=300), "notes": Expected(0, rows=100)})
    run.on("selected", "deals", "notes", requests=0, rows=0, tokens=0)
    run.now += 10
    run.progress(Event("page", "deals", StreamReceipt(inserted=90, unchanged=10)))
    assert run.screen()[-2].startswith("25 % done, 300 rows left, about 30 s. Streams: 0 done, 1 under way, 1 waiting")
    run.progress(Event("finished", "deals", StreamReceipt(inserted=290, unchanged=10)))
    assert run.screen()[-2].startswith("75 % done, 100 rows left, about 3 s.")


def test_events_of_programs_are_only_starts_ends_and_messages(capsys: pytest.CaptureFixture[str]) -> None:
    app = App()
    app.json = True
    progress = Progress(app)
    for kind in ("selected", "started", "page", "finished"):
        progress(Event(kind, "deals", StreamReceipt()))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    counts = {"requests": 0, "tokens": 0, "read": 0}
    assert lines == [{"event": "started", "stream": "deals"}, {"event": "finished", "stream": "deals", **counts}]


def test_on_a_terminal_no_old_frame_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_screen(monkeypatch) as read:
        with Progress(App()) as progress:
            for name in NAMES:
                progress(Event("started", name, StreamReceipt(requests=1)))
        frames = re.split(r"(?:\x1b\[1A|\x1b\[2K|\r)+", read())
    drawn = [frame.count("\n") for frame in frames if "stream_00" in frame]
    assert 22 <= min(drawn) <= max(drawn) <= 23  # a terminal of 24 rows: the cursor can go back to the first one
    assert "stream_" not in frames[-1]
