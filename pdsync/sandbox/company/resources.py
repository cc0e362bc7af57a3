"""Declares the kinds of records of the sandbox: routes, filters, costs and checks follow from their entries.

A new kind needs an entry here, a generator in `population`, and a v1 form in `v1_records`; the handlers in
`routes` are the same for all kinds. Costs are in Pipedrive's tokens per request.
"""

from __future__ import annotations

from msgspec import Struct

from pdsync.sandbox.company.data import words

COUNTS_OF_CONTACTS = words(
    "open_deals_count related_open_deals_count closed_deals_count related_closed_deals_count "
    "email_messages_count activities_count done_activities_count undone_activities_count files_count notes_count "
    "followers_count won_deals_count related_won_deals_count lost_deals_count related_lost_deals_count"
)


class Cost(Struct, frozen=True):
    """Tokens per request, by what it does."""

    list: int
    one: int
    write: int
    delete: int
    merge: int = 40


class Resource(Struct, frozen=True, kw_only=True):
    """One kind of record, and what the API can do with it."""

    kind: str  # name of the table, and of the path
    one: str  # name of a single record in operations and error messages
    facets: tuple[str, ...]  # values stored beside the JSON, to filter, sort and count by
    path: str = ""
    filters_v2: dict[str, str] = {}  # query parameter: facet
    filters_v1: dict[str, str] = {}
    updated: tuple[str, ...] = ()  # which of updated_since, updated_until the v2 list takes
    sorts: tuple[str, ...] = ("id", "update_time", "add_time")
    optional: tuple[str, ...] = ()  # include_fields
    has_ids: bool = False
    has_filter: bool = False
    custom_fields: bool = False  # records have custom fields, and custom_fields= selects among them
    labels: bool = False  # include_labels, include_option_labels
    body: dict[str, str] = {}  # field: check, see `protocol.validation`; "!": required in a POST
    renamed_v1: dict[str, str] = {}  # v1 name: v2 name, of body fields and sort keys
    cost_v2: Cost | None = Cost(10, 1, 5, 3)
    cost_v1: Cost = Cost(20, 2, 10, 6)
    merge: bool = False
    created_v2: int = 200
    created_v1: int = 201
    limit_v1: int = 500
    paged_v1: bool = True
    writes: bool = True
    related: bool = False  # v1 lists carry related_objects
    v1_lists: bool = True
    owner: str = "owner_id"  # facet with the only user who sees a record with visible_to 1

    @property
    def url(self) -> str:
        return self.path or self.kind


DEALS = Resource(
    kind="deals",
    one="deal",
    facets=words(
        "id add_time update_time owner_id visible_to person_id org_id pipeline_id stage_id status is_archived"
    ),
    filters_v2={k: k for k in ("owner_id", "person_id", "org_id", "pipeline_id", "stage_id")},
    filters_v1={
        "user_id": "owner_id",
        **{k: k for k in ("person_id", "org_id", "pipeline_id", "stage_id")},
    },
    updated=("updated_since", "updated_until"),
    optional=words(
        "next_activity_id last_activity_id first_won_time products_count files_count notes_count followers_count "
        "email_messages_count activities_count done_activities_count undone_activities_count participants_count "
        "last_incoming_mail_time last_outgoing_mail_time smart_bcc_email source_lead_id"
    ),
    has_ids=True,
    has_filter=True,
    custom_fields=True,
    labels=True,
    merge=True,
    related=True,
    body={
        "title": "text!",
        "owner_id": "ref:users",
        "person_id": "ref:persons?",
        "org_id": "ref:organizations?",
        "pipeline_id": "ref:pipelines",
        "stage_id": "ref:stages",
        "value": "number?",
        "currency": "currency",
        "is_deleted": "bool",
        "is_archived": "bool",
        "archive_time": "time?",
        "status": "one_of:open,won,lost",
        "probability": "percent?",
        "lost_reason": "text?",
        "visible_to": "visible_to",
        "close_time": "time?",
        "won_time": "time?",
        "lost_time": "time?",
        "expected_close_date": "date?",
        "label_ids": "labels",
        "custom_fields": "custom",
    },
    renamed_v1={"user_id": "owner_id", "label": "label_ids"},
)

PERSONS = Resource(
    kind="persons",
    one="person",
    facets=words("id add_time update_time owner_id visible_to org_id name"),
    filters_v2={"owner_id": "owner_id", "org_id": "org_id", "deal_id": "deal_id"},
    filters_v1={"user_id": "owner_id"},
    updated=("updated_since", "updated_until"),
    optional=(
        "next_activity_id",
        "last_activity_id",
        *COUNTS_OF_CONTACTS,
        "participant_open_deals_count",
        "participant_closed_deals_count",
        "last_incoming_mail_time",
        "last_outgoing_mail_time",
        "marketing_status",
        "doi_status",
        "smart_bcc_email",
    ),
    has_ids=True,
    has_filter=True,
    custom_fields=True,
    labels=True,
    merge=True,
    related=True,
    body={
        "name": "text!",
        "owner_id": "ref:users",
        "org_id": "ref:organizations?",
        "add_time": "time",
        "emails": "contacts",
        "phones": "contacts",
        "visible_to": "visible_to",
        "label_ids": "labels",
        "postal_address": "address?",
        "notes": "text?",
        "im": "contacts",
        "birthday": "date?",
        "job_title": "text?",
        "marketing_status": "one_of:no_consent,unsubscribed,subscribed,archived",
        "custom_fields": "custom",
    },
    renamed_v1={"email": "emails", "phone": "phones", "label": "label_ids"},
)

ORGANIZATIONS = Resource(
    kind="organizations",
    one="organization",
    facets=words("id add_time update_time owner_id visible_to name"),
    filters_v2={"owner_id": "owner_id"},
    filters_v1={"user_id": "owner_id"},
    updated=("updated_since", "updated_until"),
    optional=("next_activity_id", "last_activity_id", *COUNTS_OF_CONTACTS, "people_count", "smart_bcc_email"),
    has_ids=True,
    has_filter=True,
    custom_fields=True,
    labels=True,
    merge=True,
    related=True,
    body={
        "name": "text!",
        "owner_id": "ref:users",
        "add_time": "time",
        "visible_to": "visible_to",
        "label_ids": "labels",
        "address": "address?",
        "website": "text?",
        "linkedin": "text?",
        "industry": "integer?",
        "annual_revenue": "number?",
        "employee_count": "integer?",
        "custom_fields": "custom",
    },
    renamed_v1={"label": "label_ids"},
)

PRODUCTS = Resource(
    kind="products",
    one="product",
    facets=words("id add_time update_time owner_id visible_to name"),
    filters_v2={"owner_id": "owner_id"},
    filters_v1={"user_id": "owner_id"},
    updated=("updated_since",),
    sorts=("id", "name", "add_time", "update_time"),
    has_ids=True,
    has_filter=True,
    custom_fields=True,
    related=True,
    created_v2=201,
    body={
        "name": "text!",
        "code": "text?",
        "description": "text?",
        "unit": "text?",
        "tax": "number",
        "category": "category?",
        "owner_id": "ref:users",
        "is_linkable": "bool",
        "visible_to": "visible_to",
        "prices": "prices",
        "billing_frequency": "one_of:one-time,annually,semi-annually,quarterly,monthly,weekly",
        "billing_frequency_cycles": "integer?",
        "custom_fields": "custom",
    },
    renamed_v1={"selectable": "is_linkable"},
)

ACTIVITIES = Resource(
    kind="activities",
    one="activity",
    facets=words("id add_time update_time owner_id deal_id lead_id person_id org_id done due_date due_time type"),
    filters_v2={k: k for k in ("owner_id", "deal_id", "lead_id", "person_id", "org_id", "done")},
    filters_v1={"type": "type", "done": "done"},  # and user_id, which has a default
    updated=("updated_since", "updated_until"),
    sorts=("id", "update_time", "add_time", "due_date"),
    optional=("attendees",),
    has_ids=True,
    has_filter=True,
    related=True,
    body={
        "subject": "text",
        "type": "text",
        "owner_id": "ref:users",
        "deal_id": "ref:deals?",
        "lead_id": "text?",
        "org_id": "ref:organizations?",
        "project_id": "integer?",
        "due_date": "date?",
        "due_time": "hour?",
        "duration": "hour?",
        "busy": "bool",
        "done": "bool",
        "location": "address?",
        "participants": "participants",
        "attendees": "attendees",
        "public_description": "text?",
        "priority": "integer?",
        "note": "text?",
    },
    renamed_v1={"user_id": "owner_id", "busy_flag": "busy"},
)

PIPELINES = Resource(
    kind="pipelines",
    one="pipeline",
    facets=words("id add_time update_time order_nr"),
    created_v1=200,
    paged_v1=False,
    cost_v2=Cost(5, 1, 5, 3),
    cost_v1=Cost(10, 2, 10, 6),
    body={"name": "text!", "is_deal_probability_enabled": "bool"},
    renamed_v1={"deal_probability": "is_deal_probability_enabled"},
)

STAGES = Resource(
    kind="stages",
    one="stage",
    facets=words("id add_time update_time order_nr pipeline_id"),
    filters_v2={"pipeline_id": "pipeline_id"},
    filters_v1={"pipeline_id": "pipeline_id"},
    sorts=("id", "update_time", "add_time", "order_nr"),
    created_v1=200,
    cost_v2=Cost(5, 1, 5, 3),
    cost_v1=Cost(10, 2, 10, 6),
    body={
        "name": "text!",
        "pipeline_id": "ref:pipelines!",
        "deal_probability": "percent",
        "is_deal_rot_enabled": "bool",
        "days_to_rotten": "integer?",
    },
    renamed_v1={"rotten_flag": "is_deal_rot_enabled", "rotten_days": "days_to_rotten"},
)

USERS = Resource(
    kind="users",
    one="user",
    facets=words("id add_time update_time"),
    cost_v2=None,
    paged_v1=False,
    writes=False,
)

FILES = Resource(
    kind="files",
    one="file",
    facets=words("id add_time update_time user_id deal_id person_id org_id product_id activity_id"),
    sorts=("id", "update_time"),
    cost_v2=None,
    limit_v1=100,
    writes=False,  # files have their own writes: multipart, form, download
    owner="user_id",
)

MAIL_THREADS = Resource(
    kind="mail_threads",
    path="mailbox/mailThreads",
    one="mailThread",
    facets=words(
        "id add_time update_time user_id folder last_message_timestamp deal_id person_id org_id message_count"
    ),
    cost_v2=None,
    cost_v1=Cost(20, 20, 10, 6),
    writes=False,
    owner="user_id",
)

RESOURCES = {
    resource.kind: resource
    for resource in (
        DEALS,
        PERSONS,
        ORGANIZATIONS,
        PRODUCTS,
        ACTIVITIES,
        PIPELINES,
        STAGES,
        USERS,
        FILES,
        MAIL_THREADS,
    )
}

# Which kinds have field definitions: by their path, and by their kind in the dump.
FIELD_PATHS = {
    "dealFields": "deals",
    "personFields": "persons",
    "organizationFields": "organizations",
    "productFields": "products",
    "activityFields": "activities",
}
FIELD_KINDS = {
    "deal_fields": "deals",
    "person_fields": "persons",
    "organization_fields": "organizations",
    "product_fields": "products",
    "activity_fields": "activities",
}
FIELD_COST_V2 = Cost(10, 1, 5, 3)
FIELD_COST_V1 = Cost(20, 2, 10, 6)
