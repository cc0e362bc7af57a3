"""`pdsync action` and `pdsync actions`: the component's actions by their own names."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from pdsync.cli import overview, tables
from pdsync.cli.app import App, Command
from pdsync.cli.commands import api
from pdsync.cli.commands.push import push
from pdsync.cli.layout import Rows
from pdsync.core.actions import DEBUG, Action, actions, inputs_of, is_true, read_inputs, replacement_of
from pdsync.core.actions import action as action_of
from pdsync.core.log import clean_json
from pdsync.core.raw_request import pair
from pdsync.core.sinks import MemorySink, TooLarge
from pdsync.errors import ConfigError
from pdsync.runner.actions import change, read
from pdsync.runner.actions.caller import Caller
from pdsync.runner.actions.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pdsync.cli.layout import Line
    from pdsync.core.actions import Given
    from pdsync.core.http import Http
    from pdsync.model import Mutation
    from pdsync.runner.actions.prepare import Prepared

_MOST_SHOWN = 8 * 2**20  # bytes of a file


@click.command(cls=Command)
@click.argument("key")
@click.argument("values", nargs=-1, metavar="[INPUT=VALUE]…")
@click.option("--now", is_flag=True, help="Send a change at once: preview, confirmation, every guard of a push.")
@click.option("--yes", is_flag=True, help="With --now, or a raw request: send without asking.")
@click.option("--allow", metavar="WHAT", default="", help="With --now: what else a push may do, as for pdsync push.")
@click.option("--max-deletes", type=click.IntRange(min=0), metavar="N", help="With --now: as for pdsync push.")
@click.option("--as-today", is_flag=True, help="Records as today's operation returns them, without further requests.")
@click.option(
    "--replacement", is_flag=True, help="For an action that Pipedrive removed: the one that does the same today."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write a downloaded file to this file.")
@click.pass_context
def action(
    context: click.Context,
    key: str,
    values: tuple[str, ...],
    now: bool,
    yes: bool,
    allow: str,
    max_deletes: int | None,
    as_today: bool,
    replacement: bool,
    out: Path | None,
) -> None:
    """Carry out the action KEY with inputs by the component's names (filterId) or in snake_case.

    The answer is JSON in the component's shape. A change waits in the queue until it is pushed, or sent with --now.
    pdsync actions lists all actions, and pdsync actions KEY the inputs of one.

    \b
    pdsync action getDeals fetchAll=true ownedByYou=true
    pdsync action updateDeal id=42 status=won --now
    pdsync action downloadFile id=7 --out offer.pdf
    """
    app: App = context.obj
    chosen = replacement_of(action_of(key)) if replacement else action_of(key)
    given = read_inputs(chosen, _given(chosen, values))
    if out and chosen.kind != "download":
        raise ConfigError("--out takes the content of a downloaded file. Nothing was called.")
    if now and not chosen.is_queued:
        raise ConfigError(f"{chosen.key} changes nothing that waits in the queue: omit --now. Nothing was called.")
    if now and not yes and (app.no_input or not sys.stdin.isatty()):
        raise ConfigError(f"{chosen.key} may change data. Nothing was sent; add --yes if you mean it.")
    if chosen.kind == "raw":
        _raw(app, chosen, given, yes=yes)
    elif chosen.is_queued:
        mutation = api.run(app, _queue(app, chosen, given))
        if now:
            context.invoke(push, batch=mutation.batch, yes=yes, allow=allow, max_deletes=max_deletes)
            _show(app, api.run(app, _pushed(app, mutation.id, as_today=as_today)))
        else:
            _show(app, change.queued_answer(mutation))
            app.note(f"#{mutation.seq} waits in the queue. Nothing was sent. See what it does: pdsync push --dry-run")
    else:
        api.run(app, _read(app, chosen, given, out, as_today=as_today))


@click.command("actions", cls=Command)
@click.argument("words", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="List every action, on a terminal too.")
@click.pass_obj
def actions_command(app: App, words: tuple[str, ...], everything: bool) -> None:
    """List the actions whose key, title, kind or inputs contain all WORDS; with the key of one, list its inputs.

    Without WORDS, a terminal shows the kinds of actions; --all, a file or a pipe lists every action.
    """
    if len(words) == 1 and words[0] in actions():
        _show_inputs(app, actions()[words[0]])
        return
    matching = [each for each in actions().values() if all(word.lower() in _text(each) for word in words)]
    if app.json:
        for each in matching:
            app.emit(_facts(each))
        return
    if overview.is_wanted(app, everything=everything or bool(words)):
        overview.show(app, *lay_out_kinds(matching, app.out.width))
        return
    rows = [[each.key, each.kind, "removed" if each.removed else each.operation, _tokens(each)] for each in matching]
    tables.show(app, Rows(["action", "kind", "operation", "tokens"], rows))
    app.note(f"\n{len(matching)} of {len(actions())} actions. The inputs of one: pdsync actions getDeals")


def lay_out_kinds(actions: Sequence[Action], width: int) -> list[list[Line]]:
    """The overview: the actions by what they do, the largest kinds first."""
    kinds: dict[str, list[str]] = {}
    for each in actions:
        kinds.setdefault(each.kind, []).append(each.key)
    groups = [overview.Group(kind, [len(keys)], keys) for kind, keys in kinds.items()]
    groups.sort(key=lambda each: -each.figures[0])
    removed = sum(bool(each.removed) for each in actions)
    queued = sum(each.is_queued for each in actions)
    text = (
        f"{len(actions):,} actions. {queued:,} change data: they wait in the queue until a push, or go at once with"
        f" --now. {removed:,} no longer exist in Pipedrive."
    )
    return [
        overview.lay_out_text(text, width),
        overview.lay_out_groups(["kind", "actions", "names"], groups, width),
        overview.lay_out_commands(
            [
                ("Those about something", "pdsync actions deal product"),
                ("The inputs of one", "pdsync actions getDeals"),
                ("Carry one out", "pdsync action getDeals status=open"),
                ("Every action", "pdsync actions --all"),
            ],
            width,
        ),
    ]


def _given(chosen: Action, values: tuple[str, ...]) -> dict[str, object]:
    """The inputs by name; one of several pairs may be given several times."""
    kinds = {name: each.type for name, each in inputs_of(chosen).items()}
    inputs: dict[str, object] = {}
    for text in values:
        name, value = pair(text, "an input")
        if kinds.get(name) == "pairs" and value.lstrip()[:1] not in ("{", "["):
            before = inputs.setdefault(name, [])
            if isinstance(before, list):
                before.append(value)
                continue
        if name in inputs:
            raise ConfigError(f"{chosen.key}: {name} is given twice. Nothing was called.")
        inputs[name] = value
    return inputs


def _caller(app: App, http: Http, chosen: Action, given: Given) -> Caller:
    debug = is_true(chosen, DEBUG, given.inputs.get(DEBUG, False))
    return Caller(http, app.note if debug else None)


async def _read(app: App, chosen: Action, given: Given, out: Path | None, *, as_today: bool) -> None:
    async with api.session(app) as http:
        prepared = await prepare(chosen, given, _caller(app, http, chosen, given), as_today=as_today)
        if out:
            _show(app, await read.download_to(prepared, out))
        elif chosen.kind == "download":
            _show(app, await _small_file(prepared))
        elif app.json:
            async for piece in read.pieces(prepared):
                sys.stdout.write(clean_json(piece.decode()))
            sys.stdout.write("\n")
        else:
            _show(app, await read.read(prepared))


async def _small_file(prepared: Prepared) -> dict[str, Any]:
    """A file as JSON: a number for each byte, as the component has it."""
    file = MemorySink()
    try:
        content_type = await read.download(prepared, file, most_bytes=_MOST_SHOWN)
    except TooLarge as error:
        raise ConfigError(f"The file is too large to be shown as JSON: add --out FILE. {error}") from error
    return {"data": bytes(file.body), "contentType": content_type}


async def _queue(app: App, chosen: Action, given: Given) -> Mutation:
    async with api.session(app) as http:
        prepared = await prepare(chosen, given, _caller(app, http, chosen, given))
    return change.queue(app.settings, prepared)


async def _pushed(app: App, id: str, *, as_today: bool) -> dict[str, Any]:
    async with api.session(app) as http:
        return await change.pushed_answer(Caller(http), change.find(app.settings, id), as_today=as_today)


def _raw(app: App, chosen: Action, given: Given, *, yes: bool) -> None:
    method, url = str(given.inputs["method"]).upper(), str(given.inputs["url"])
    changes = method != "GET"
    if changes:
        api.consent(app, f"{method} {url}", yes=yes)

    async def work() -> dict[str, Any]:
        async with api.session(app) as http:
            if changes:
                await api.check_company(app, http)
            return await read.raw_request(chosen, given.inputs, _caller(app, http, chosen, given))

    _show(app, api.run(app, work(), doubtful=f"{method} {url}" if changes else None))


def _show(app: App, answer: dict[str, Any]) -> None:
    text = read.as_json(answer)
    app.result(clean_json((text if app.json else msgspec.json.format(text, indent=2)).decode()))


def _show_inputs(app: App, chosen: Action) -> None:
    if app.json:
        app.emit(_facts(chosen))
        return
    rows = [
        [name, "yes" if each.required else "", each.default, each.meaning, [each.explained] if each.explained else []]
        for name, each in inputs_of(chosen).items()
    ]
    tables.show(app, Rows(["input", "required", "default", "meaning", "honoured"], rows, notes=True))
    app.note(f"\n{chosen.title}: {chosen.removed or chosen.operation or 'a raw request'}")


def _facts(chosen: Action) -> dict[str, Any]:
    inputs = {
        name: {**msgspec.to_builtins(each), "honoured": each.honoured} for name, each in inputs_of(chosen).items()
    }
    return {**msgspec.to_builtins(chosen), "tokens": _tokens(chosen), "inputs": inputs}


def _tokens(chosen: Action) -> int | None:
    return chosen.called.cost if chosen.called and not chosen.removed else None


def _text(chosen: Action) -> str:
    return " ".join([chosen.key, chosen.title, chosen.kind, chosen.operation or "", *chosen.inputs]).lower()
