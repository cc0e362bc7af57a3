"""A local Pipedrive: a generated company behind a real HTTP server, with the limits and faults of the API.

It answers v1 (under `/v1` and `/api/v1`) and v2 (under `/api/v2`) for deals, persons, organizations, products,
activities, pipelines, stages, users, files, mail and fields, and every other documented operation by its description.
It is written from the API's documents only and imports nothing else of pdsync; where the documents leave something
open, a comment says `Assumption:`.

    from pdsync.sandbox import Limits, Sizes, generate_company, running

    with running(generate_company(seed=1, sizes=Sizes(deals=200)), limits=Limits(burst=None)) as box:
        box.url, box.token              # the address, and the admin's token; box.tokens has the other users'
        box.faults.add(kind="reset_after", method="POST", path="/deals$", nth=1)
        box.change(share=0.01)          # users change one record in a hundred
        box.act("PATCH", "/api/v2/deals/1", {"value": 5})  # another user does something in the app
        box.clock.advance(3600)
        box.dump("deals")               # all records: kind, id, state, merged_into, record
        box.log, box.journal, box.window()

The same over HTTP, for a sandbox in another process: `/_admin/dump`, `/log`, `/journal`, `/window`, `/summary`,
`/faults`, `/clock`, `/limits`, `/change`, `/spend`, `/live`, `/access`, `/fields`, `/edit`, `/act`,
`/oauth`, `/install`.

Five packages, each of which imports only those above it:

    company/      the data: clock, tables of records, declared resources, field definitions and custom values, the
                  journal of changes, and `population/`, which generates three years of history
    protocol/     the HTTP API: messages, errors, list parameters, finding rows, validation, records as JSON of v2 and
                  of v1 with the values derived from their neighbours
    operations/   the operations: writes, merges, conversions, searches, changelogs and feeds have a module each;
                  `generic` answers all others from the documents' description (`documented`)
    activity/     simulated users: changes of records over time
    server/       the socket: routes, limits, OAuth, faults, request log, the admin interface, start and stop
"""

from __future__ import annotations

from pdsync.sandbox.activity.simulate import LiveChanges
from pdsync.sandbox.company.clock import Clock
from pdsync.sandbox.company.company import Company, Sizes, Viewer
from pdsync.sandbox.company.population import generate_company
from pdsync.sandbox.server.faults import BadFaults, Fault
from pdsync.sandbox.server.launch import (
    RunningSandbox,
    running,
    serve_forever,
)
from pdsync.sandbox.server.limits import Limits
from pdsync.sandbox.server.oauth import Settings as OAuthSettings
from pdsync.sandbox.server.server import Sandbox

__all__ = [
    "BadFaults",
    "Clock",
    "Company",
    "Fault",
    "Limits",
    "LiveChanges",
    "OAuthSettings",
    "RunningSandbox",
    "Sandbox",
    "Sizes",
    "Viewer",
    "generate_company",
    "running",
    "serve_forever",
]
