"""A local Pipedrive: a believable company behind a real HTTP server, with its limits, moods and bad days.

It answers v1 (under `/v1` and `/api/v1`) and v2 (under `/api/v2`) for deals, persons, organizations, products,
activities, pipelines, stages, users, files, mail and fields. It knows the API from its documents only, and
nothing of the rest of pdsync; wherever the documents are silent a comment says `Assumption:`.

    from pdsync.sandbox import Limits, Sizes, generate_company, running

    with running(generate_company(seed=1, sizes=Sizes(deals=200)), limits=Limits(burst=None)) as box:
        box.url, box.token              # where, and as whom: the admin; box.tokens has the others
        box.faults.add(kind="reset_after", method="POST", path="/deals$", nth=1)
        box.change(share=0.01)          # the company works for an hour
        box.act("PATCH", "/api/v2/deals/1", {"value": 5})  # a colleague does one thing, in the app
        box.clock.advance(3600)
        box.dump("deals")               # the truth: kind, id, state, merged_into, record
        box.log, box.journal, box.window()

The same over HTTP, for a sandbox in another process: `/_admin/dump`, `/log`, `/journal`, `/window`, `/summary`,
`/faults`, `/clock`, `/limits`, `/change`, `/spend`, `/live`, `/access`, `/fields`, `/edit`, `/act`.

    clock · data      the time, the words
    resources         what there is to serve; everything declared is declared there
    table · company   records as bytes with facets beside them; the one way to change them; the journal
    fields · values   definitions of fields, and what custom fields hold
    population        three years of history
    query · select    what a list was asked for, and the rows that answer
    render · counts   records as JSON of v2, and what they count about their neighbours
    v1 · v1_parts     the same records as v1 shows them
    checks · from_v1 · writes · merges    what may be written, and what follows
    routes · extras   the operations
    shelves · shelf_kinds · made_up    records of all other kinds
    changelog · flow · linked · notes  what was done to a record, what happened around it, what hangs on it
    search · found    records by what stands in them
    recents · timeline · movements     what changed lately; deals by date; how a pipeline fared
    limits · oauth · faults · log    around every request
    changes · shelf_changes · schema   the company at work: records, and fields
    server · admin · box    the socket, the back door, start and stop
"""

from __future__ import annotations

from pdsync.sandbox.activity.simulate import LiveChanges
from pdsync.sandbox.company.clock import Clock
from pdsync.sandbox.company.company import Company, Sizes, Viewer
from pdsync.sandbox.company.population import generate_company
from pdsync.sandbox.server.faults import Fault
from pdsync.sandbox.server.launch import (
    RunningSandbox,
    running,
    serve,
    serve_forever,
)
from pdsync.sandbox.server.limits import Limits
from pdsync.sandbox.server.oauth import Settings as OAuthSettings
from pdsync.sandbox.server.server import Sandbox

__all__ = [
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
    "serve",
    "serve_forever",
]
