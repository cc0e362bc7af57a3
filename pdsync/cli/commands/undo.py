"""`pdsync undo`: queue the changes that undo a push."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pdsync.cli import ids
from pdsync.cli.ids import IdCommand
from pdsync.core.wording import counted
from pdsync.runner import push as pushing
from pdsync.writeback import undo

if TYPE_CHECKING:
    from pdsync.cli.app import App
    from pdsync.model import Mutation


@click.command("undo", cls=IdCommand)
@click.argument("push_id")
@click.pass_obj
def undo_command(app: App, push_id: str) -> None:
    """Queue the changes that undo the push PUSH_ID, and name those that can't be undone. Nothing is sent.

    PUSH_ID is an id or its beginning, `last`, or -2 for the one before it.

    A field that was changed since is left as it is. The exit code is 4 if something can't be undone.
    """
    with pushing.opened(app.settings) as (outbox, _):
        pushes = [str(each["id"]) for each in outbox.push_log.pushes(1000)]
        push_id = ids.find("push", pushes, push_id, "The changes of all pushes: pdsync queue list --all")
        entries, stuck = undo.make_undo(outbox, push_id)
        existing = undo.find_reversals(outbox, entries)
        undone = {each.undo_of for each in existing}
        queued = outbox.add([each for each in entries if each.undo_of not in undone])
    if app.json:
        for each in queued:
            app.emit({"event": "queued", "name": f"#{each.seq}", "id": each.id, "operation": each.operation,
                      "target": each.target, "undo_of": each.undo_of})  # fmt: skip
        for failure in stuck:
            mutation = failure.mutation
            app.emit({"event": "no_way_back", "name": f"#{mutation.seq}", "operation": mutation.operation,
                      "target": mutation.target, "why": failure.why})  # fmt: skip
        app.emit({"event": "summary", "complete": not stuck, "exit_code": 4 if stuck else 0, "run_id": push_id,
                  "streams": {}, "queued": len(queued), "already_queued": [f"#{each.seq}" for each in existing],
                  "no_way_back": len(stuck)})  # fmt: skip
        _exit_undo(stuck)
        return
    for failure in stuck:
        mutation = failure.mutation
        app.note(f"Can't be undone: #{mutation.seq} {mutation.operation} {mutation.target or ''}: {failure.why}")
    if existing:
        app.note(_describe_existing(existing))
    if queued:
        preview = f"Preview {'it' if len(queued) == 1 else 'them'}: pdsync push --dry-run"
        app.note(f"Queued {_describe_reversals(len(queued))}. {preview}")
    elif stuck:
        app.note(f"Nothing of {push_id} can be undone. Nothing was queued.")
    elif existing:
        app.note("Nothing was queued.")
    else:
        app.note(f"{push_id} changed nothing: there is nothing to undo.")
    _exit_undo(stuck)


def _describe_existing(existing: list[Mutation]) -> str:
    """The changes that undo a push and were queued before, with their numbers and what is still to be done."""
    numbers = sorted(each.seq for each in existing)
    shown = f"#{numbers[0]}" if len(numbers) == 1 else f"#{numbers[0]}–#{numbers[-1]}"
    waiting = sum(each.state == "queued" for each in existing)
    after = f"{waiting:,} to send: pdsync push --dry-run" if waiting else "none to send: pdsync queue list --all"
    are = "is" if len(numbers) == 1 else "are"
    return f"{_describe_reversals(len(numbers))} {are} queued already ({shown}), {after}"


def _describe_reversals(number: int) -> str:
    return f"{counted(number, 'change')} that {'undoes' if number == 1 else 'undo'} it"


def _exit_undo(stuck: list[undo.NotUndoable]) -> None:
    if stuck:
        raise click.exceptions.Exit(4)
