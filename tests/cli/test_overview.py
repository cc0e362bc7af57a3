"""Long lists show a screen first: groups, counts, what needs attention, and how to see the rest; a pipe gets all.

The files in `golden/screens` show each one at two widths; `python -m tests.cli.test_overview` writes them again.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from pdsync.cli import layout, receipts
from pdsync.cli.commands.action import lay_out_kinds
from pdsync.cli.commands.describe import Listed, lay_out_tables
from pdsync.cli.commands.fields import lay_out_fields
from pdsync.cli.commands.operations import lay_out_paths
from pdsync.cli.commands.plan import lay_out_forecast
from pdsync.cli.commands.reconcile import lay_out_streams
from pdsync.cli.commands.streams import lay_out_topics
from pdsync.cli.main import main
from pdsync.cli.overview import Group, lay_out_groups
from pdsync.cli.queue_overview import lay_out_queue
from pdsync.cli.text_width import cell_width, wrap_prose
from pdsync.core import actions, catalogue
from pdsync.model import Mutation, Receipt, State, StreamReceipt, Verb
from pdsync.runner.pipelines.forecast import Forecast, ListForecast
from pdsync.runner.reconcile.findings import Finding, ReconcileResult
from tests.cli.test_tables import on_screen, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.cli.layout import Line

    Screen = Callable[[int], list[list[Line]]]

GOLDEN = Path(__file__).parent / "golden" / "screens"
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
NAMES = list(catalogue.streams())


def field(entity: str, label: str, *options: str, code: int = 0, age: int = 0) -> dict[str, Any]:
    column = f"cf_{label.lower().replace(' ', '_')}{f'_{code}' * bool(code)}"
    return {
        "name": column, "entity": entity, "code": f"{code:040x}", "label": label, "type": "enum" if options else "text",
        "first_seen": NOW - timedelta(days=900), "last_seen": NOW - timedelta(days=age),
        "options": list(options) or None,
    }  # fmt: skip


FIELDS = [
    *(field("deals", f"Question number {number}", code=number) for number in range(30)),
    field("deals", "Tier", "Gold", "Silver"), field("deals", "Tier", "A", "B", code=5), field("deals", "Old", age=40),
    field("persons", "Nickname"), field("persons", ""),
]  # fmt: skip
LINES = [
    ListForecast(name, "getIt", "v2", "changes" if number % 2 else "full", number, 20 * number, "last time", False)
    for number, name in enumerate(NAMES[:30], 1)
]
OPTIONAL = [ListForecast(name, "getIt", "v1", "full", 9, 180, "all deals", True) for name in NAMES[40:60]]


def mutation(number: int, verb: Verb, name: str) -> Mutation:
    state: State = "needs_review" if number == 3 else "queued"
    return Mutation(
        number, f"m{number}", "b", 1, f"v2 {name}", verb, "deals", f"deals/{number}", {}, None, NOW, "me", state
    )  # fmt: skip


QUEUE = [mutation(number, "update", "updateDeal") for number in range(1, 102)] + [mutation(102, "merge", "mergeDeals")]
RECEIPT = {
    name: StreamReceipt(requests=2, tokens=40, read=500, unchanged=500, complete=True) for name in NAMES[:45]
} | {
    "deals": StreamReceipt(9, 90, 3_000, inserted=20, updated=80, unchanged=2_900, complete=True),
    "leads": StreamReceipt(1, 20, complete=False),
}  # fmt: skip
FIRST = {
    name: StreamReceipt(1, 10, 7 * number, inserted=7 * number, complete=True) for number, name in enumerate(NAMES[:42])
}
COMPARED = ReconcileResult(
    Receipt("run", "reconcile", NOW),
    [Finding("deals", "7", "stale"), Finding("deals", "8", "stale"), Finding("deals", "9", "missing")],
    swept=dict.fromkeys(NAMES, (1_000, 1_000, 1_000)) | {"deals": (12_001, 12_000, 11_998), "leads": (5, 6, 5)},
)
TABLES = [
    *(Listed(name, 1_000 - number, None) for number, name in enumerate(NAMES)),
    Listed("deal_labels", None, None), Listed("notes_of_mine", 3, None),
    *(Listed(f"sales.view_{number:02}", None, None) for number in range(40)), Listed("meta.runs", 12, None),
]  # fmt: skip
TURNS = {"currencies": 20, "goals": 80}  # tokens that are saved

SCREENS: dict[str, Screen] = {
    "streams": lambda width: lay_out_topics(list(catalogue.streams().values()), width),
    "operations": lambda width: lay_out_paths(
        [each for version in catalogue.VERSIONS for each in catalogue.operations(version).values()], width
    ),
    "actions": lambda width: lay_out_kinds(list(actions.actions().values()), width),
    "fields": lambda width: lay_out_fields(FIELDS, width),
    "plan": lambda width: lay_out_forecast(
        Forecast(LINES, 20, 30_000, OPTIONAL, {"deal_products": 9_000}, TURNS), width
    ),
    "plan_first": lambda width: lay_out_forecast(Forecast([replace(LINES[0], at_least=True)], 20, 0), width),
    "describe": lambda width: lay_out_tables(TABLES, width),
    "queue": lambda width: lay_out_queue(QUEUE, width),
    "receipt": lambda width: [layout.lay_out(receipts.lay_out_streams(RECEIPT, 24), width)],
    "receipt_first": lambda width: [layout.lay_out(receipts.lay_out_streams(FIRST, 24), width)],
    "reconcile": lambda width: [layout.lay_out(lay_out_streams(COMPARED, 24), width)],
}


def drawn(name: str) -> str:
    parts = []
    for width in (80, 120):
        lines = [[line.text for line in part] for part in SCREENS[name](width) if part]
        parts.append(f"=== {width} ===\n" + "\n\n".join("\n".join(part) for part in lines) + "\n")
    return "\n".join(parts)


@pytest.mark.parametrize("name", SCREENS)
def test_each_screen_is_as_in_its_file(name: str) -> None:
    assert drawn(name) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SCREENS)
@pytest.mark.parametrize(("width", "most"), [(80, 40), (120, 40), (60, 60)])
def test_no_screen_is_wider_than_the_terminal_or_a_long_list(name: str, width: int, most: int) -> None:
    lines = [line.text for part in SCREENS[name](width) for line in (*part, layout.Line(""))]
    assert max(map(cell_width, lines)) <= width
    assert len(lines) <= most


def test_every_group_counts_what_it_does_not_name() -> None:
    names = [f"name_{number}" for number in range(100)]
    for width in range(40, 140, 7):
        for most in (1, 2, 3):
            lines = lay_out_groups(["g", "n", "names"], [Group("all", [100], names)], width, most_lines=most)[1:]
            shown = sum(line.text.count("name_") for line in lines)
            assert len(lines) <= most
            assert lines[-1].text.endswith(f"… {100 - shown} more")
    assert lay_out_groups(["g", "names"], [Group("a", [], ["x", "y"])], 80)[1].text == "a  x, y"


def test_a_receipt_that_fits_is_whole_and_in_order() -> None:
    few = {str(name): RECEIPT[name] for name in ("deal_fields", "leads", "deals")}
    for height in (24, None):
        shown = [row[0][2:] for row in receipts.lay_out_streams(few, height).values]
        assert shown == list(few)


@pytest.mark.parametrize("streams", [RECEIPT, FIRST], ids=["nightly", "first"])
def test_a_short_receipt_counts_what_the_whole_one_does(streams: dict[str, StreamReceipt]) -> None:
    whole, short = (receipts.lay_out_streams(streams, height).values for height in (None, 24))
    assert len(whole) == len(streams)
    assert len(short) <= 15
    for column in range(1, 8):
        assert sum(row[column] for row in short) == sum(row[column] for row in whole)


@pytest.mark.parametrize("command", ["streams", "operations", "actions"])
def test_a_terminal_gets_a_screen_and_with_all_or_in_a_pipe_every_row(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAGER", "cat")

    def run(*arguments: str) -> None:
        monkeypatch.setattr("sys.argv", ["pdsync", command, *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0

    shown: dict[tuple[str, ...], list[str]] = {}
    for arguments in ((), ("--all",)) if command == "streams" else ((),):  # more than a terminal takes unread
        with on_screen(monkeypatch) as read:
            run(*arguments)
            shown[arguments] = plain(read()).splitlines()
    assert len(shown[()]) < 40
    assert command != "streams" or len(shown["--all",]) > 90
    run()
    assert len(capsys.readouterr().out.splitlines()) > 90
    run("--json")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == {"streams": 97, "operations": len(rows), "actions": 149}[command] > 90


def test_prose_breaks_at_spaces_and_keeps_indents_and_long_words() -> None:
    path = "/a/very/long/path" * 6
    text = f"  one two three {path} four\n\nfive"
    assert wrap_prose(text, 20) == f"  one two three\n  {path}\n  four\n\nfive"
    assert wrap_prose("a  table   kept", 20) == "a  table   kept"


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for case in SCREENS:
        (GOLDEN / f"{case}.txt").write_text(drawn(case), encoding="utf-8")
