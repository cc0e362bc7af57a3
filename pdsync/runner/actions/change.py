"""Carries out the actions that change data: each is queued, and pushed at once on request.

The queue is the only way to change data here: each change is planned, guarded and verified, and can be undone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

from pdsync.core import actions
from pdsync.errors import ConfigError
from pdsync.runner import kept_uploads
from pdsync.runner import push as pushing
from pdsync.runner.actions.prepare import prepare
from pdsync.runner.actions.read import read
from pdsync.writeback import enqueue as queueing

if TYPE_CHECKING:
    from collections.abc import Callable

    from pdsync.core.config import Settings
    from pdsync.model import Mutation
    from pdsync.runner.actions.caller import Caller
    from pdsync.runner.actions.prepare import Prepared
    from pdsync.runner.push import PushRequest
    from pdsync.writeback.plan import Plan

# Records with the keys of v1, by the action that shows one.
_SHOWN_BY = {
    "deals": "getDeal", "persons": "getPerson", "organizations": "getOrganization", "products": "getProduct",
    "pipelines": "getPipeline", "stages": "getStage",
}  # fmt: skip


def queue(settings: Settings, made: Prepared) -> Mutation:
    """Queue the change. Nothing is sent.

    Raises:
        ConfigError: a name or a value is wrong. Nothing was queued.
        StorageError: a file to upload can't be kept, or the queue can't be opened.
    """
    operation = queueing.find_operation(made.action.operation or "")
    params = dict(made.params)
    with pushing.opened(settings) as (outbox, names), kept_uploads.locked(settings):
        try:
            if "file" in made.wants:
                params["file"] = str(_named_file(settings, made.wants["file"], str(made.wants["file_name"])))
            return outbox.add([queueing.make_entry(names, operation, params)])[0]
        finally:
            kept_uploads.remove_ended(settings, outbox.mutations(kept_uploads.WAITING))


async def push(
    settings: Settings, mutation: Mutation, request: PushRequest, confirm: Callable[[Plan], bool]
) -> Mutation:
    """Send a queued change, with every guard, and return how it ended.

    Raises:
        GuardTripped: a guard holds it back; it stays in the queue.
        PdsyncError: see `pdsync.runner.push`.
    """
    await pushing.push(settings, structs.replace(request, batch=mutation.batch), confirm)
    with pushing.opened(settings) as (outbox, _), kept_uploads.locked(settings):
        kept_uploads.remove_ended(settings, outbox.mutations(kept_uploads.WAITING))
        return outbox.get(mutation.id)


def find(settings: Settings, id: str) -> Mutation:
    """The mutation `id` as it stands now."""
    with pushing.opened(settings) as (outbox, _):
        return outbox.get(id)


def queued_answer(mutation: Mutation) -> dict[str, Any]:
    """What an action answers whose change waits in the queue."""
    facts = {"name": f"#{mutation.seq}", "id": mutation.id, "operation": mutation.operation, "target": mutation.target}
    return {"data": {"success": True, "data": None, "queued": {**facts, "state": mutation.state}}}


async def pushed_answer(caller: Caller, mutation: Mutation, *, as_today: bool = False) -> dict[str, Any]:
    """What an action answers whose change was sent: the record as it is now, or the id of a deleted one.

    One that was not applied answers with `success` false, the reason as `error`, and its state.
    """
    if mutation.state != "applied":
        reason = mutation.detail or mutation.reason
        return {"data": {"success": False, "error": reason, "state": mutation.state, "data": None}}
    id = mutation.remote_id or (mutation.target or "").rpartition("/")[2]
    number: Any = int(id) if id.isdigit() else id or None
    record = {"id": number} if mutation.verb == "delete" or not mutation.after_image else mutation.after_image
    if mutation.kind in _SHOWN_BY and mutation.verb != "delete" and not as_today:
        action = actions.action(_SHOWN_BY[mutation.kind])
        made = await prepare(action, actions.read_inputs(action, {"id": number}), caller)
        record = (await read(made))["data"]["data"]
    return {"data": {"success": True, "data": record}}


def _named_file(settings: Settings, content: object, name: str) -> Path:
    """The file to upload, under the name that Pipedrive shall show.

    Raises:
        ConfigError: there is no such file, or the name is none.
        StorageError: the project's folder can't be written.
    """
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise ConfigError(f"fileName {name!r} is no name of a file. Nothing was queued.")
    path = None if isinstance(content, bytes) else Path(str(content).removeprefix("@")).absolute()
    if path is not None and not path.is_file():
        raise ConfigError(f"{path} is no file that could be read. Nothing was queued.")
    if path is not None and path.name == name:
        return path
    return kept_uploads.keep(settings, content if isinstance(content, bytes) else path or b"", name)
