"""Values that come from spreadsheets and SQL, from the file to the record: read as intended, or not queued."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from pdsync.sandbox import Limits, Sizes, generate_company, running
from tests.support.world import Project
from tests.writeback.test_import_files import word, workbook

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.sandbox import RunningSandbox
    from tests.support.world import Ran

FIELDS = "/api/v2/dealFields"
PUSH = ("push", "--yes", "--json", "--settle-seconds", "0.1")


@pytest.fixture(scope="module")
def box() -> Iterator[RunningSandbox]:
    company = generate_company(seed=21, sizes=Sizes(deals=12, files=1, mail_threads=1), now=datetime.now(UTC))
    with running(company, limits=Limits(burst=None, search_burst=None, daily_tokens=None)) as box:
        yield box


@pytest.fixture(scope="module")
def codes(box: RunningSandbox) -> dict[str, str]:
    """The codes of fields that were made for these tests; one of them was deleted and made again."""
    kinds = {"Fee": "monetary", "Years": "set", "Wanted": "set", "Term": "daterange", "Open": "timerange",
             "Who": "visible_to", "Again": "varchar"}  # fmt: skip
    options = {"Years": ["2023", "2024"], "Wanted": ["Food, drinks", "Retail"]}
    made: dict[str, str] = {}
    for name, kind in kinds.items():
        sent: dict[str, Any] = {"field_name": name, "field_type": kind}
        if name in options:
            sent["options"] = [{"label": label} for label in options[name]]
        made[name] = box.act("POST", FIELDS, sent)["data"]["field_code"]
    return made


@pytest.fixture(scope="module")
def project(box: RunningSandbox, codes: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("values") / "project")
    project.configure(base_url=box.url, api_token=box.token)
    assert project.here("sync", "-q", "deals", "persons").code == 0
    box.act("DELETE", f"{FIELDS}/{codes['Again']}", {})
    codes["Again"] = box.act("POST", FIELDS, {"field_name": "Again", "field_type": "double"})["data"]["field_code"]
    box.clock.advance(3600)
    assert project.here("sync", "-q", "deals").code == 0
    return project


@pytest.fixture(autouse=True)
def empty_queue(project: Project) -> Iterator[None]:
    yield
    project.here("queue", "drop", "--all")


def live(box: RunningSandbox, kind: str) -> list[dict[str, Any]]:
    return [entry["record"] for entry in box.dump(kind) if entry["state"] == "live"]


def record(box: RunningSandbox, kind: str, id: int) -> dict[str, Any]:
    found: dict[str, Any] = next(entry["record"] for entry in box.dump(kind) if entry["id"] == id)
    return found


def import_csv(project: Project, text: str, *options: str, operation: str = "updateDeal") -> Ran:
    path = project.folder / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return project.here("queue", "import", str(path), "--operation", operation, "--json", *options)


def push(project: Project) -> dict[str, int]:
    ran = project.here(*PUSH)
    assert ran.code == 0, ran
    found: dict[str, int] = ran.summary["mutations"]
    return found


def test_w7_a_spreadsheet_of_half_of_europe_arrives_as_it_was_meant(
    box: RunningSandbox, project: Project, codes: dict[str, str]
) -> None:
    one, other = (deal["id"] for deal in live(box, "deals")[:2])
    rows = [
        "id;value;Fee;Years;Wanted;Term;Open;Who;Again;status;currency;visible_to;expected_close_date",
        f"{one};1.234;1.234,56 EUR;2023;Food, drinks, Retail;1.3.2026 - 31.3.2026;9:00-17:30;Owner;0,5;Won;eur;Group;"
        "31.03.2026",
        f'{other};999,50;999,50 EUR;2024,2023;"[""Retail""]";2026-03-01;9:00-17:30;7;1;LOST;usd;Everyone;2026-03-31',
    ]
    ran = import_csv(project, "\n".join(rows))
    assert ran.code == 0, ran
    assert push(project)["applied"] == 2
    first, second = record(box, "deals", one), record(box, "deals", other)
    custom = first["custom_fields"]
    fields = {field["field_code"]: field for field in box.act("GET", f"{FIELDS}?limit=500", {})["data"]}
    options = [*fields[codes["Years"]]["options"], *fields[codes["Wanted"]]["options"]]
    labels = {option["label"]: option["id"] for option in options}
    assert (first["value"], second["value"]) == (1234, 999.5)
    assert custom[codes["Fee"]] == {"value": 1234.56, "currency": "EUR"}
    assert second["custom_fields"][codes["Fee"]] == {"value": 999.5, "currency": "EUR"}
    assert custom[codes["Years"]] == [labels["2023"]]
    assert custom[codes["Wanted"]] == sorted([labels["Food, drinks"], labels["Retail"]])
    assert custom[codes["Term"]] == {"value": "2026-03-01", "until": "2026-03-31"}
    assert custom[codes["Open"]]["until"] == "17:30:00"
    assert (custom[codes["Who"]], custom[codes["Again"]]) == (1, 0.5)
    assert (first["status"], first["currency"], first["visible_to"]) == ("won", "EUR", 3)
    assert (first["expected_close_date"], second["status"]) == ("2026-03-31", "lost")


def test_w7_numbers_and_flags_of_a_workbook_are_what_they_are(
    box: RunningSandbox, project: Project, codes: dict[str, str], tmp_path: Path
) -> None:
    deal = live(box, "deals")[4]["id"]
    head = "".join(map(word, ("id", "title", "Fee", "Again", "NDA signed", "is_archived")))
    cells = "".join(f"<c><v>{number}</v></c>" for number in (deal, 12.5, 1.234, 1.234))
    path = workbook(tmp_path / "rows.xlsx", head, f"{cells}<c t='b'><v>1</v></c><c t='b'><v>0</v></c>")
    ran = project.here("queue", "import", str(path), "--operation", "updateDeal", "--json")
    assert ran.code == 0, ran
    assert push(project)["applied"] == 1
    found = record(box, "deals", deal)
    signed = project.ask("SELECT field_code FROM meta.custom_fields WHERE entity = 'deals' AND label = 'NDA signed'")
    assert found["title"] == "12.5"
    assert found["custom_fields"][codes["Fee"]]["value"] == 1.234
    assert found["custom_fields"][codes["Again"]] == 1.234
    assert found["custom_fields"][signed[0][0]] is True


def test_w7_a_part_that_is_not_given_is_unchanged(box: RunningSandbox, project: Project, codes: dict[str, str]) -> None:
    deal = live(box, "deals")[2]["id"]
    held = {
        codes["Term"]: {"value": "2026-01-01", "until": "2026-06-30"},
        codes["Fee"]: {"value": 5, "currency": "USD"},
    }
    box.act("PATCH", f"/api/v2/deals/{deal}", {"custom_fields": held})
    ran = import_csv(project, f"id,Term,cf_fee_currency\n{deal},2026-02-01,eur\n")
    assert ran.code == 0, ran
    assert push(project)["applied"] == 1
    custom = record(box, "deals", deal)["custom_fields"]
    assert custom[codes["Term"]] == {"value": "2026-02-01", "until": "2026-06-30"}
    assert custom[codes["Fee"]] == {"value": 5, "currency": "EUR"}


def test_w7_ambiguous_numbers_are_refused_with_row_column_value_and_remedy(
    box: RunningSandbox, project: Project
) -> None:
    ran = import_csv(project, "id;Fee\n1;5 EUR\n2;1.234 EUR\n")
    assert ran.code == 2
    for said in ("row 2", "'Fee'", "'1.234 EUR'", "--decimal", "1.2340"):
        assert said in ran.err
    assert project.control("SELECT count(*) FROM mutations WHERE state = 'queued'") == [(0,)]
    ran = import_csv(project, "id;Fee\n1;5 EUR\n2;1.234 EUR\n", "--decimal", ",")
    assert ran.code == 0, ran
    fee = next(iter(ran.events[1]["payload"]["custom_fields"].values()))
    assert fee == {"value": 1234, "currency": "EUR"}
    ran = import_csv(project, 'id,value\n1,1.234\n2,"1,234"\n')  # commas between cells: points before decimals
    assert [event["payload"]["value"] for event in ran.events] == [1.234, 1234]
    assert project.here("queue", "add", "updateDeal", "id=1", "value=1.234").code == 2
    assert project.here("queue", "add", "updateDeal", "id=1", "value=1.234", "--decimal", ".").code == 0


def test_w7_a_division_by_nothing_is_refused_and_empties_nothing(box: RunningSandbox, project: Project) -> None:
    for expression in ("'nan'::DOUBLE", "'-inf'::DOUBLE"):
        for column in ("value", "probability", '"Again"', '"Fee"'):
            query = f"SELECT id, {expression} AS {column} FROM deals WHERE _deleted_at IS NULL LIMIT 1"
            ran = project.here("queue", "from-sql", query, "--operation", "updateDeal")
            assert ran.code == 2, ran
            assert "row 1" in ran.err
            assert "finite" in ran.err
            assert column.strip('"') in ran.err
    assert project.control("SELECT count(*) FROM mutations WHERE state = 'queued'") == [(0,)]


def test_w7_a_query_with_two_columns_of_one_name_queues_nothing(project: Project) -> None:
    query = "SELECT d.id, d.title, p.id FROM deals d JOIN persons p ON d.person_id = p.id LIMIT 1"
    ran = project.here("queue", "from-sql", query, "--operation", "updateDeal")
    assert ran.code == 2, ran
    assert "a column is named twice: 'id' (id, title, id)" in ran.err
    assert project.control("SELECT count(*) FROM mutations WHERE state = 'queued'") == [(0,)]


def test_s16_a_field_that_was_deleted_and_recreated_keeps_its_label(
    box: RunningSandbox, project: Project, codes: dict[str, str]
) -> None:
    deal = live(box, "deals")[3]["id"]
    assert len(project.ask("SELECT 1 FROM meta.custom_fields WHERE entity = 'deals' AND label = 'Again'")) == 2
    assert project.here("queue", "add", "updateDeal", f"id={deal}", "Again=2.5").code == 0
    assert push(project)["applied"] == 1
    assert record(box, "deals", deal)["custom_fields"][codes["Again"]] == 2.5
    ran = project.here("queue", "add", "updateDeal", f"id={deal}", "cf_again=x")
    assert ran.code == 2
    assert "was deleted" in ran.err


@pytest.mark.parametrize("kind", ["phones", "emails"])
def test_w7_contacts_that_stay_the_same_keep_their_labels_and_count_as_already_so(
    box: RunningSandbox, project: Project, kind: str
) -> None:
    person = live(box, "persons")[0]["id"]
    held = [
        {"value": "one@example.com", "label": "mobile", "primary": False},
        {"value": "two@example.com", "label": "home", "primary": True},
    ]
    box.act("PATCH", f"/api/v2/persons/{person}", {kind: held})
    ran = import_csv(project, f"id;{kind}\n{person};one@example.com, two@example.com\n", operation="updatePerson")
    assert ran.code == 0, ran
    push(project)
    assert project.control("SELECT reason FROM mutations WHERE id = ?", ran.events[0]["id"]) == [("already_so",)]
    assert record(box, "persons", person)[kind] == held
    text = f'id;{kind}\n{person};"one@example.com; three@example.com; two@example.com"\n'
    assert import_csv(project, text, operation="updatePerson").code == 0
    assert push(project)["applied"] == 1
    third = {"value": "three@example.com", "label": "work", "primary": False}
    assert record(box, "persons", person)[kind] == [held[0], third, held[1]]


def test_w10_a_preview_shows_a_label_that_changes(box: RunningSandbox, project: Project) -> None:
    person = live(box, "persons")[1]["id"]
    box.act("PATCH", f"/api/v2/persons/{person}", {"phones": [{"value": "1", "label": "home", "primary": True}]})
    sent = '[{"value": "1", "label": "mobile", "primary": true}]'
    assert project.here("queue", "add", "updatePerson", f"id={person}", f"phones={sent}").code == 0
    shown = project.here("push", "--dry-run").out
    assert "1 (home) → 1 (mobile)" in shown


@pytest.mark.parametrize(
    ("value", "was", "becomes"),
    [
        ("1.4.2026 - 30.4.2027", "2026-03-01 – 2026-03-31", "2026-04-01 – 2027-04-30"),
        ("1.3.2026 - 30.4.2027", "2026-03-01 – 2026-03-31", "2026-03-01 – 2027-04-30"),
    ],
)
def test_w10_a_preview_shows_the_end_of_a_range(
    box: RunningSandbox, project: Project, codes: dict[str, str], value: str, was: str, becomes: str
) -> None:
    deal = live(box, "deals")[0]["id"]
    term = {"custom_fields": {codes["Term"]: {"value": "2026-03-01", "until": "2026-03-31"}}}
    box.act("PATCH", f"/api/v2/deals/{deal}", term)
    queued = project.here("queue", "add", "updateDeal", f"id={deal}", f"Term={value}")
    assert becomes in queued.out + queued.err
    assert becomes in project.here("queue", "list").out
    assert f"Term: {was} → {becomes}" in project.here("push", "--dry-run").out


def test_w7_null_on_the_command_line_empties_a_field_of_any_type(
    box: RunningSandbox, project: Project, codes: dict[str, str]
) -> None:
    deal = live(box, "deals")[1]["id"]
    custom = {
        codes["Term"]: {"value": "2026-03-01", "until": "2026-03-31"},
        codes["Fee"]: {"value": 5, "currency": "EUR"},
    }
    body = {"status": "lost", "lost_reason": "Price", "expected_close_date": "2026-03-31", "custom_fields": custom}
    box.act("PATCH", f"/api/v2/deals/{deal}", body)
    words = ["lost_reason=null", "expected_close_date=null", "Term=null", "Fee=null", "value=null"]
    ran = project.here("queue", "add", "updateDeal", f"id={deal}", *words)
    assert ran.code == 0, ran
    assert push(project)["applied"] == 1
    found = record(box, "deals", deal)
    assert (found["lost_reason"], found["expected_close_date"], found["value"]) == (None, None, None)
    assert not any((found["custom_fields"].get(codes[name]) or {}).get("value") for name in ("Term", "Fee"))
    ran = project.here("queue", "add", "updateDeal", "id=null", "title=x")
    assert ran.code == 2, ran
    assert "id" in ran.err
