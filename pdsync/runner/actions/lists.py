"""Reads the list of an action: every page or one, with the conditions and orders that Pipedrive no longer knows.

Lists of today have cursors; `start` and `limit` are counted here over the records that match, so that the page is the
one that the component would show. Only a sorted list is kept in memory; all others pass through.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from pdsync.core import catalogue
from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from pdsync.model import Operation
    from pdsync.runner.actions.prepare import Prepared

    Record = dict[str, Any]

_BATCH = 100  # ids that one request may name


class Listing:
    """The list of one action, as records that come one by one.

    `additional` is known when `records` has ended.
    """

    def __init__(self, made: Prepared) -> None:
        self._made = made
        self._more = False
        self._count = 0
        self._totals: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0, 0.0]))
        self._related = any(each.how == "related_deals" for each in made.action.inputs.values()) and (
            "related_deals" not in made.wants
        )

    @property
    def is_one_request(self) -> bool:
        """Whether Pipedrive's own answer to one request is the answer: it pages, filters and sorts as requested."""
        made, operation = self._made, self._made.operation
        if operation.paging == "none":
            return not made.conditions and not made.sort
        return (
            operation.paging == "offset"
            and not (made.fetches_all or made.conditions or made.sort)
            and made.wants.get("archived", "not_archived") != "all"
            and made.limit <= (operation.page_size or made.limit)
        )

    async def answer(self) -> Any:
        """The answer to the one request."""
        made = self._made
        paging = {} if made.operation.paging == "none" else {"start": made.start, "limit": made.limit}
        return await made.caller.ask(self._operations()[0], made.params | paging)

    async def records(self) -> AsyncGenerator[Record]:
        """The records of the page, or of all pages."""
        batch: list[Record] = []
        async for record in self._page():
            batch.append(record)
            if len(batch) == _BATCH:
                for each in await self._completed(batch):
                    yield each
                batch = []
        for each in await self._completed(batch):
            yield each

    @property
    def additional(self) -> dict[str, Any]:
        """What stands beside the records: where the page is, and totals on request."""
        made = self._made
        limit = made.operation.page_size or made.limit if made.fetches_all else made.limit
        facts: dict[str, Any] = {
            "pagination": {
                "start": made.start,
                "limit": limit,
                "more_items_in_collection": self._more,
                "next_start": made.start + made.limit if self._more else 0,
            }
        }
        if "product_count" in made.wants:
            facts["summary"] = {"total_count": self._count}
        if "deals_summary" in made.wants:
            facts["deals_summary"] = self._deals_summary()
        return facts

    async def _page(self) -> AsyncGenerator[Record]:
        made = self._made
        counts_all = bool({"product_count", "deals_summary"} & made.wants.keys())
        async for record in self._matching():
            self._count += 1
            if "deals_summary" in made.wants:
                totals = self._totals[record["stage_id"]][record["currency"]]
                totals[0] += 1
                totals[1] += record["value"] or 0
            if self._count <= made.start:
                continue
            if not made.fetches_all and self._count > made.start + made.limit:
                self._more = True
                if not counts_all:
                    return
                continue
            yield record

    async def _matching(self) -> AsyncGenerator[Record]:
        made = self._made
        order = list(made.sort)
        if self._related:  # of several lists: their order is made here
            by, direction = str(made.params.pop("sort_by", "id")), made.params.pop("sort_direction", "asc")
            order = order or [(by, direction == "desc")]
        source = self._related_deals() if self._related else self._listed()
        if not order:
            async for record in source:
                if all(condition(record) for condition in made.conditions):
                    yield record
            return
        matching = [record async for record in source if all(condition(record) for condition in made.conditions)]
        for key, descending in reversed(order):
            _check_key(made, key, matching)
            matching.sort(key=lambda record, key=key: _rank(_value(record, key)), reverse=descending)  # type: ignore[misc]
        for record in matching:
            yield record

    async def _listed(self) -> AsyncGenerator[Record]:
        made = self._made
        for operation in self._operations():
            params = dict(made.params)
            passes = made.conditions or made.sort or {"product_count", "deals_summary"} & made.wants.keys()
            if operation.paging == "cursor" and not made.fetches_all and not passes:
                params["limit"] = min(made.start + made.limit + 1, operation.page_size or _BATCH)
            async for record in made.caller.walk(operation, params):
                yield record

    def _operations(self) -> list[Operation]:
        """The lists to read: archived leads have one of their own."""
        made = self._made
        archived = str(made.wants.get("archived", "not_archived"))
        if archived not in ("archived", "not_archived", "all"):
            raise ConfigError(
                f"{made.action.key}: archivedStatus is {archived!r}, and may be archived, not_archived or all."
            )
        both = [made.operation, catalogue.operation("v1 getArchivedLeads")] if "archived" in made.wants else []
        return {"archived": both[1:], "all": both}.get(archived) or [made.operation]

    async def _related_deals(self) -> AsyncGenerator[Record]:
        """Deals of an organization, of its persons, and those that name it in a custom field."""
        made = self._made
        rest = {name: value for name, value in made.params.items() if name != "org_id"}
        org = str(made.params["org_id"])
        persons = catalogue.operation("v2 getPersons")
        queries: list[Mapping[str, object]] = [made.params]
        queries += [{**rest, "person_id": person["id"]} async for person in made.caller.walk(persons, {"org_id": org})]
        fields = catalogue.operation("v2 getDealFields")
        codes = [
            field["field_code"]
            async for field in made.caller.walk(fields, {})
            if field["field_type"] == "org" and field["is_custom_field"]
        ]
        seen = set[int]()
        for params in queries:
            async for deal in made.caller.walk(made.operation, params):
                if deal["id"] not in seen:
                    seen.add(deal["id"])
                    yield deal
        if codes:  # no list filters by them
            async for deal in made.caller.walk(made.operation, rest):
                named = {str((deal.get("custom_fields") or {}).get(code)) for code in codes}
                if org in named and deal["id"] not in seen:
                    yield deal

    async def _completed(self, batch: list[Record]) -> list[Record]:
        """The records with what further requests bring."""
        if self._made.v1 and batch:
            return await self._made.v1.show(batch)
        if "product_data" not in self._made.wants or not batch:
            return batch
        ids = sorted({record["product_id"] for record in batch})
        products = {
            product["id"]: product
            async for product in self._made.caller.walk(
                catalogue.operation("v2 getProducts"), {"ids": ",".join(map(str, ids))}
            )
        }
        return [{**record, "product": products.get(record["product_id"])} for record in batch]

    def _deals_summary(self) -> dict[str, Any]:
        def shown(totals: list[float]) -> dict[str, float]:
            return {"count": int(totals[0]), "value": round(totals[1], 2)}

        whole: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
        for currencies in self._totals.values():
            for currency, (count, value) in currencies.items():
                whole[currency][0] += count
                whole[currency][1] += value
        return {
            "per_stages": {
                str(stage): {currency: shown(totals) for currency, totals in currencies.items()}
                for stage, currencies in sorted(self._totals.items())
            },
            "per_currency": {currency: int(totals[0]) for currency, totals in whole.items()},
            "per_currency_full": {currency: shown(totals) for currency, totals in whole.items()},
        }


def _value(record: Record, key: str) -> Any:
    return record[key] if key in record else (record.get("custom_fields") or {}).get(key)


def _rank(value: Any) -> tuple[int, float, str]:
    """Nothing first, then numbers, then texts: an order for every pair of values."""
    if isinstance(value, dict):
        value = value.get("value")
    if value is None or value == []:
        return (0, 0.0, "")
    if isinstance(value, bool | int | float):
        return (1, float(value), "")
    return (2, 0.0, str(value).casefold())


def _check_key(made: Prepared, key: str, records: list[Record]) -> None:
    known = {name for record in records[:_BATCH] for name in (*record, *(record.get("custom_fields") or {}))}
    if records and key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{made.action.key} can't sort by {key!r}: no record has it.{guess}")
