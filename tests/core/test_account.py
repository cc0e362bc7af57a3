"""Who sees everything: an administrator of the sales data and of what all apps share, and nobody else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pdsync.core.account import read_account
from pdsync.errors import BadAnswer


def account(access: Any) -> bytes:
    return json.dumps({"data": {"id": 1, "name": "Ines", "company_id": 7, "access": access}}).encode()


def rights(**admin: bool) -> list[dict[str, object]]:
    return [{"app": app, "admin": flag, "permission_set_id": "62cc"} for app, flag in admin.items()]


@pytest.mark.parametrize(
    ("access", "limited_in"),
    [
        (rights(sales=True, **{"global": True}, account_settings=True), ()),  # the vendor's own example
        (rights(sales=True, **{"global": True}, account_settings=False, campaigns=False), ()),
        (rights(sales=True, **{"global": False}), ("global",)),  # contacts and activities of others may be hidden
        (rights(sales=False, **{"global": True}), ("sales",)),  # deals and leads of others may be
        (rights(sales=True), ("global",)),
        (rights(account_settings=True), ("sales", "global")),
        (rights(sales=True, **{"global": True}, projects=False), ("projects",)),
        (rights(sales=True, **{"global": True}, projects=True), ()),
        ([], ("sales", "global")),
        (None, ("sales", "global")),
        ("odd", ("sales", "global")),
        ([None, {"app": "sales", "admin": 1}, {"app": "global", "admin": "true"}], ("sales", "global")),
    ],
)
def test_s8_an_administrator_is_one_of_all_apps_whose_records_are_read(
    access: Any, limited_in: tuple[str, ...]
) -> None:
    found = read_account(account(access))
    assert found.limited_in == limited_in
    assert found.is_admin == (not limited_in)


@pytest.mark.parametrize("body", [b"<html>", b'{"data":null}', b'{"data":{"id":1,"name":"x"}}', b"[]", b"\xff"])
def test_x1_an_answer_that_names_no_company_is_none(body: bytes) -> None:
    with pytest.raises(BadAnswer, match="of which company"):
        read_account(body)
