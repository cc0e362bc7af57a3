"""The routes of the sandbox: the operation, cost and handler of each method and path, and the handlers of records.

The routes of a kind follow from its entry in `resources`; only those of other forms (files, mail, users/me, fields,
and operations with rules of their own) are listed here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import structs

from pdsync.sandbox.company.resources import (
    FIELD_COST_V1,
    FIELD_COST_V2,
    FIELD_PATHS,
    RESOURCES,
    Cost,
    Resource,
)
from pdsync.sandbox.company.table import encode
from pdsync.sandbox.operations import (
    actions,
    administration,
    documented,
    generic,
    merges,
    writes,
)
from pdsync.sandbox.operations.changelog import list_changes
from pdsync.sandbox.operations.conversions import conversion_status, convert_deal, convert_lead
from pdsync.sandbox.operations.deals_timeline import deals_timeline
from pdsync.sandbox.operations.field_writes import (
    add_field,
    change_options,
    delete_field,
    delete_fields,
    update_field,
)
from pdsync.sandbox.operations.filters import matching_ids
from pdsync.sandbox.operations.goals import find_goals
from pdsync.sandbox.operations.membership_log import list_joined
from pdsync.sandbox.operations.nested_lists import deals_by_product
from pdsync.sandbox.operations.pipeline_stats import conversion, movement
from pdsync.sandbox.operations.recents import list_recents
from pdsync.sandbox.operations.search import (
    find_users,
    search,
    search_field,
    search_items,
)
from pdsync.sandbox.operations.updates_feed import list_flow, list_mail
from pdsync.sandbox.operations.users_files_mail import (
    add_file,
    add_picture,
    delete_file,
    delete_picture,
    delete_thread,
    download_file,
    get_me,
    get_message,
    get_picture,
    get_users,
    list_messages,
    update_file,
    update_thread,
)
from pdsync.sandbox.protocol import v1_parts, v1_records
from pdsync.sandbox.protocol.errors import (
    feature_off,
    gone_field,
    not_found,
    refused,
)
from pdsync.sandbox.protocol.list_params import (
    V2_LIMIT,
    encode_cursor,
    encode_field_cursor,
    read_field_cursor,
    read_limit,
    read_one_v2,
    read_start,
    read_v1,
    read_v2,
)
from pdsync.sandbox.protocol.messages import Reply, Route, is_number, success
from pdsync.sandbox.protocol.render import PLAIN, V1

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.sandbox.company.table import Row
    from pdsync.sandbox.protocol.messages import Call

    Answer = Callable[[Call, Route], Reply]

NO_PAGING_V1 = ("pipelines", "mail_threads")  # lists whose answers have no additional_data


# -- verbs -------------------------------------------------------------------------------------------


def list_v2(call: Call, route: Route) -> Reply:
    resource, archived = _resource_of(call, route), route.operation.startswith("getArchived")
    selection, page, shape = read_v2(call, resource, archived, _filtered(call, resource))
    table = call.company[resource.kind]
    overlay = (call.overlay or {}).get(resource.kind)
    rows, more = call.finder.after(table, selection, page, call.viewer, overlay=overlay)
    cursor = f'"{encode_cursor(selection, table.key(rows[-1], selection.sort[0][0]))}"' if more else "null"
    records = b",".join(call.renderer.many(resource.kind, rows, shape))
    return Reply(200, b'{"success":true,"data":[%b],"additional_data":{"next_cursor":%b}}' % (records, cursor.encode()))


def list_v1(call: Call, route: Route) -> Reply:
    resource, archived = _resource_of(call, route), route.operation.startswith("getArchived")
    selection, page = read_v1(call, resource, archived, _filtered(call, resource))
    if archived and (product := call.query.get("product_id")) and not call.query.get("filter_id"):
        with_product = deals_by_product(call.company).get(int(product) if is_number(product) else 0, ())
        selection = structs.replace(selection, ids=frozenset(with_product))
    table = call.company[resource.kind]
    overlay = (call.overlay or {}).get(resource.kind)
    rows, more = call.finder.cut(table, selection, page, call.viewer, overlay=overlay)
    records = b",".join(call.renderer.many(resource.kind, rows, V1))
    data = b"[%b]" % records if rows else b"null"
    tail = b""
    if resource.kind not in NO_PAGING_V1:
        tail = b',"additional_data":' + encode({"pagination": _pagination(page.start, page.limit, more)})
    if resource.related:
        tail += b',"related_objects":' + encode(v1_parts.related(call.company, resource.kind, rows))
    return Reply(200, b'{"success":true,"data":%b%b}' % (data, tail))


def _filtered(call: Call, resource: Resource) -> frozenset[int] | None:
    return matching_ids(call, resource.kind) if resource.has_filter else None


def get_one(call: Call, route: Route) -> Reply:
    resource = _resource_of(call, route)
    shape = V1 if call.version == "v1" else read_one_v2(call, resource)
    row = writes.find(call, resource, call.id(), deleted=True)
    return _one(call, resource, row, 200, shape)


def add(call: Call, route: Route) -> Reply:
    resource = _resource_of(call, route)
    row = writes.add(call, resource)
    return _one(call, resource, row, resource.created_v2 if call.version == "v2" else resource.created_v1)


def update(call: Call, route: Route) -> Reply:
    resource = _resource_of(call, route)
    return _one(call, resource, writes.update(call, resource), 200)


def delete(call: Call, route: Route) -> Reply:
    return success({"id": writes.delete(call, _resource_of(call, route)).id})


def merge(call: Call, route: Route) -> Reply:
    resource = _resource_of(call, route)
    row, loser_id = merges.merge(call, resource)
    if resource.kind == "organizations":
        return success({"id": row.id})
    record = v1_records.shape(call.company, resource.kind, row)
    for name in ("creator_user_id", "user_id", "owner_id", "person_id", "org_id"):
        if isinstance(record.get(name), dict):
            record[name] = record[name]["value"]  # a merge shows plain ids where lists nest
    return success({**record, "merge_what_id": loser_id})


def _one(call: Call, resource: Resource, row: Row, status: int, shape: Any = None) -> Reply:
    shape = shape or (V1 if call.version == "v1" else PLAIN)
    (body,) = call.renderer.many(resource.kind, [row], shape)
    tail = b""
    if call.version == "v1" and resource.related:
        tail = b',"related_objects":' + encode(v1_parts.related(call.company, resource.kind, [row]))
    return Reply(status, b'{"success":true,"data":%b%b}' % (body, tail))


def _resource_of(call: Call, route: Route) -> Resource:
    assert route.resource is not None  # noqa: S101 - every verb above is bound to one
    if route.resource.kind in call.company.features_off:
        raise feature_off(route.resource.kind)
    return route.resource


def _pagination(start: int, limit: int, more: bool) -> dict[str, Any]:
    next_start = {"next_start": start + limit} if more else {}
    return {"start": start, "limit": limit, "more_items_in_collection": more, **next_start}


# -- fields ------------------------------------------------------------------------------------------


def list_fields_v2(call: Call, route: Route) -> Reply:
    namespaces = _namespaces(call)
    fields = call.company.fields[route.kind].all
    codes = [field.code for field in fields]
    start, limit = read_field_cursor(call.query.get("cursor"), codes), read_limit(call.query, V2_LIMIT)
    page = fields[start : start + limit]
    cursor = encode_field_cursor(page[-1].code) if len(fields) > start + limit else None
    return success([field.v2(route.kind, namespaces) for field in page], additional_data={"next_cursor": cursor})


def list_fields_v1(call: Call, route: Route) -> Reply:
    fields = call.company.fields[route.kind].all
    start, limit = read_start(call.query), read_limit(call.query, V2_LIMIT)
    if route.kind == "activities":
        start, limit = 0, max(100, len(fields))  # takes no paging parameters
    definitions = [field.v1(route.kind, order) for order, field in enumerate(fields, 1)][start : start + limit]
    paging = _pagination(start, limit, len(fields) > start + limit)
    return success(definitions or None, additional_data={"pagination": paging})


def get_field(call: Call, route: Route) -> Reply:
    fields = call.company.fields[route.kind]
    for order, field in enumerate(fields.all, 1):
        if call.params[0] == (field.code if call.version == "v2" else str(field.id)):
            return success(
                field.v2(route.kind, _namespaces(call))
                if call.version == "v2"
                else field.v1(route.kind, order, is_read_alone=True)
            )
    # Assumption: shown for product fields only; here every retired field is 410 and an unknown one 404.
    if any(call.params[0] in (code, str(field.id)) for code, field in fields.retired.items()):
        raise gone_field()
    raise not_found("field")


def _namespaces(call: Call) -> tuple[str, ...]:
    names = tuple(part.strip() for part in call.query.get("include_fields", "").split(",") if part.strip())
    valid = ("ui_visibility", "important_fields", "required_fields")
    for name in names:
        if name not in valid:
            raise refused(400, f"include_fields: {name!r} is not one of {', '.join(valid)}")
    return names


# -- the table ---------------------------------------------------------------------------------------


def _routes_of(resource: Resource) -> list[Route]:
    base, plural, singular = tuple(resource.url.split("/")), resource.url.rpartition("/")[2], resource.one
    plural, singular = plural[:1].upper() + plural[1:], singular[:1].upper() + singular[1:]
    routes: list[Route] = []

    def route(method: str, path: tuple[str, ...], operation: str, cost: int, answer: Answer) -> None:
        routes.append(Route(version, method, path, operation, cost, answer, resource))

    for version, cost, list_handler, update_method in (
        ("v1", resource.cost_v1, list_v1, "PUT"),
        ("v2", resource.cost_v2, list_v2, "PATCH"),
    ):
        if cost is None:
            continue
        if resource.kind != "users":  # their list is not paged: see `get_users`
            route("GET", base, f"get{plural}", cost.list, list_handler)
        if resource.kind == "deals":
            archived_cost = 40 if version == "v1" else 20
            route("GET", (*base, "archived"), "getArchivedDeals", archived_cost, list_handler)
        route("GET", (*base, "{}"), f"get{singular}", cost.one, get_one)
        if resource.writes:
            route("POST", base, f"add{singular}", cost.write, add)
            route(update_method, (*base, "{}"), f"update{singular}", cost.write, update)
            route("DELETE", (*base, "{}"), f"delete{singular}", cost.delete, delete)
        if resource.merge and version == "v1":
            route("PUT", (*base, "{}", "merge"), f"merge{plural}", cost.merge, merge)
    return routes


def _field_routes() -> list[Route]:
    routes = []
    for path, kind in FIELD_PATHS.items():
        plural, singular = path[:1].upper() + path[1:], path[:1].upper() + path[1:-1]
        costs: tuple[tuple[str, Cost, Answer], ...] = (
            ("v1", FIELD_COST_V1, list_fields_v1),
            ("v2", FIELD_COST_V2, list_fields_v2),
        )
        for version, cost, list_handler in costs:
            routes.append(Route(version, "GET", (path,), f"get{plural}", cost.list, list_handler, None, kind))
            if (version, kind) != ("v1", "activities"):  # not in the specification
                routes.append(Route(version, "GET", (path, "{}"), f"get{singular}", cost.one, get_field, None, kind))
    return routes


def _field_write_routes() -> list[Route]:
    """All documented writes of field definitions. Those of activities cannot be changed."""
    answers = {"POST": add_field, "PUT": update_field, "PATCH": update_field, "DELETE": delete_field}
    routes = []
    for name, operation in documented.operations().items():
        version, id = name.split(" ")
        if operation.method == "GET" or operation.parts[0] not in FIELD_PATHS:
            continue
        answer = answers[operation.method]
        if operation.parts[-1] == "options":
            answer = change_options
        elif operation.method == "DELETE" and len(operation.parts) == 1:
            answer = delete_fields
        kind = FIELD_PATHS[operation.parts[0]]
        routes.append(
            Route(
                version, operation.method, documented.pattern(operation.parts), id, operation.cost, answer, None, kind
            )
        )
    return routes


def _extra_routes() -> list[Route]:
    files, mail, persons = RESOURCES["files"], RESOURCES["mail_threads"], RESOURCES["persons"]
    thread = ("mailbox", "mailThreads", "{}")
    return [
        Route("v1", "GET", ("users",), "getUsers", 20, get_users, RESOURCES["users"]),
        Route("v1", "GET", ("users", "me"), "getCurrentUser", 2, get_me, RESOURCES["users"]),
        Route("v1", "POST", ("files",), "addFile", 10, add_file, files),
        Route("v1", "PUT", ("files", "{}"), "updateFile", 10, update_file, files),
        Route("v1", "DELETE", ("files", "{}"), "deleteFile", 6, delete_file, files),
        Route("v1", "GET", ("files", "{}", "download"), "downloadFile", 20, download_file, files),
        _documented("getPersonPicture", get_picture, "persons", "v2"),
        Route("v1", "POST", ("persons", "{}", "picture"), "addPersonPicture", 10, add_picture, persons),
        Route("v1", "DELETE", ("persons", "{}", "picture"), "deletePersonPicture", 6, delete_picture, persons),
        Route("v1", "PUT", thread, "updateMailThreadDetails", 10, update_thread, mail),
        Route("v1", "DELETE", thread, "deleteMailThread", 6, delete_thread, mail),
        Route("v1", "GET", (*thread, "mailMessages"), "getMailThreadMessages", 20, list_messages, mail),
        Route("v1", "GET", ("mailbox", "mailMessages", "{}"), "getMailMessage", 2, get_message, mail),
    ]


def _documented(id: str, answer: Answer, kind: str = "", version: str = "v1") -> Route:
    """A route with the path and the cost that the documents give an operation."""
    name = f"{version} {id}"
    operation = documented.operations()[name]
    return Route(
        version,
        operation.method,
        documented.pattern(operation.parts),
        id,
        operation.cost,
        answer,
        RESOURCES.get(kind),
        name,
    )


def _history_routes() -> list[Route]:
    routes = []
    for kind in ("deals", "persons", "organizations"):
        singular = kind.removesuffix("s").capitalize()
        routes.append(_documented(f"get{singular}Changelog", list_changes, kind))
        routes.append(_documented(f"get{singular}Updates", list_flow, kind))
        routes.append(_documented(f"get{singular}MailMessages", list_mail, kind))
    for kind in ("deals", "persons", "organizations", "products"):
        singular = kind.removesuffix("s").capitalize()
        routes.append(_documented(f"get{singular}FollowersChangelog", list_joined, kind, "v2"))
    return [
        *routes,
        _documented("getDealParticipantsChangelog", list_joined, "deals"),
        _documented("getGoals", find_goals),
        _documented("getRecents", list_recents),
        _documented("receiveMessage", generic.receive_message),
        _documented("getDealsTimeline", deals_timeline),
        _documented("getArchivedDealsTimeline", deals_timeline),
        _documented("getPipelineConversionStatistics", conversion, "pipelines"),
        _documented("getPipelineMovementStatistics", movement, "pipelines"),
        _documented("convertDealToLead", convert_deal, "deals", "v2"),
        _documented("convertLeadToDeal", convert_lead, version="v2"),
        _documented("getDealConversionStatus", conversion_status, "deals", "v2"),
        _documented("getLeadConversionStatus", conversion_status, version="v2"),
    ]


def _action_routes() -> list[Route]:
    routes = [
        _documented("addManyDealProducts", actions.add_many_products, "", "v2"),
        _documented("deleteManyDealProducts", actions.delete_many_products, "", "v2"),
        _documented("duplicateDeal", actions.duplicate_deal),
        _documented("duplicateProduct", actions.duplicate_product, "", "v2"),
        _documented("addFileAndLinkIt", actions.add_remote_file),
        _documented("linkFileToItem", actions.add_remote_file),
        *(_documented(f"{verb}Filter", actions.answer_filter) for verb in ("get", "add", "update")),
        _documented("archiveProject", actions.archive_project, "", "v1"),
        _documented("archiveProject", actions.archive_project, "", "v2"),
        _documented("addCallLogAudioFile", actions.add_recording),
        _documented("putProjectPlanActivity", actions.plan_item),
        _documented("putProjectPlanTask", actions.plan_item),
    ]
    routes += [_documented(f"{verb}ProjectFieldOptions", actions.change_project_options, "", "v2")
             for verb in ("add", "update", "delete")]  # fmt: skip
    routes += [_documented(id, answer) for id, answer in administration.ANSWERS.items()]
    routes += [_documented(f"{verb}ProductImage", actions.product_image, "", "v2")
             for verb in ("get", "upload", "update", "delete")]  # fmt: skip
    return routes


def _search_routes() -> list[Route]:
    routes = [
        _documented("findUsersByName", find_users),
        _documented("searchItem", search_items, version="v2"),
        _documented("searchItemByField", search_field, version="v2"),
        _documented("searchLeads", search),
    ]
    by_kind = {
        kind: _documented(f"search{kind}", search, version="v2")
        for kind in ("Deals", "Persons", "Organization", "Products", "Leads", "Projects")
    }
    # The v1 searches are no longer in the specification, but may still answer: at twice the cost, and with offsets.
    had_v1 = [routes[1], *(by_kind[kind] for kind in ("Deals", "Persons", "Organization", "Products"))]
    v1_routes = [Route("v1", "GET", route.pattern, route.operation, 40, route.answer) for route in had_v1]
    return [*routes, *by_kind.values(), *v1_routes]


ROUTES: list[Route] = [
    *_extra_routes(),
    *_history_routes(),
    *_field_write_routes(),
    *_action_routes(),
    *_search_routes(),
    *(route for resource in RESOURCES.values() for route in _routes_of(resource)),
    *_field_routes(),
]


ROUTES += generic.routes({(route.version, route.method, route.pattern) for route in ROUTES})
ROUTES.sort(key=lambda route: tuple(part == "{}" for part in route.pattern))  # `users/me` before `users/{}`
INDEX: dict[tuple[str, str, int], list[Route]] = {}  # by version, first part and length of the path
for _route in ROUTES:
    INDEX.setdefault((_route.version, _route.pattern[0], len(_route.pattern)), []).append(_route)


def find_route(version: str, method: str, parts: tuple[str, ...]) -> tuple[Route, tuple[str, ...]]:
    """The route of a method and a path, and the values of the path's parameters.

    Raises:
        Refused: 404 for an unknown path, 405 for a method that the path does not have.
    """
    other_method = False
    for route in INDEX.get((version, parts[0], len(parts)), ()):
        params = route.match(parts)
        if params is None:
            continue
        if route.method == method:
            return route, params
        other_method = True
    if other_method:
        raise refused(405, "Method not allowed")
    raise refused(404, "Unknown method .")
