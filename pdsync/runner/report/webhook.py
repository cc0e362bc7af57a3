"""Posts how a run ended to a webhook: Slack, Mattermost, Teams, a dead man's switch, or anything that takes JSON.

The address comes from the environment only (`PDSYNC_NOTIFY_URL`): it is a secret, and a file of a cloned project must
not send data to a host of its choice. Only the receipt is posted: counts and names of streams, no record.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from pdsync.core.config import is_loopback
from pdsync.core.log import clean, hide, log
from pdsync.core.proxy import proxy_for, proxy_options
from pdsync.core.wording import counted
from pdsync.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pdsync.model import Receipt

ENV = "PDSYNC_NOTIFY_URL"
_TIMEOUT_S = 15.0


def find_address() -> str | None:
    """The address to post to; None if none is set.

    Raises:
        ConfigError: it is not an https address (http: only on this machine). Nothing was called.
    """
    url = os.environ.get(ENV)
    if not url:
        return None
    hide(url)
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))):
        raise ConfigError(f"{ENV} is not an https address (http is allowed for this machine only). Nothing was called.")
    hide(parts.path)
    return url


def describe_receipt(pipeline: str, project: str, receipt: Receipt, exit_code: int) -> dict[str, Any]:
    """The message about a run that ended. Chat programs show its `text`."""
    streams = receipt.streams.values()
    rows = {name: sum(getattr(e, name) for e in streams) for name in ("read", "inserted", "updated", "deleted")}
    complete = receipt.complete and exit_code == 0
    outcome = "complete" if complete else f"NOT complete (exit code {exit_code})"
    lines = [
        f"pdsync {pipeline} of {project}: {outcome}. {counted(rows['read'], 'row')} read, {rows['inserted']:,} new,"
        f" {rows['updated']:,} changed, {rows['deleted']:,} deleted; {receipt.tokens:,} tokens.",
        *(f"{gap.stream}: {gap.kind}: {gap.detail}" for gap in receipt.gaps),
    ]
    facts = {
        "run_id": receipt.run_id,
        "command": receipt.command,
        "requests": receipt.requests,
        "tokens": receipt.tokens,
        **rows,
    }
    gaps = [msgspec.to_builtins(gap) for gap in receipt.gaps]
    return {"text": "\n".join(lines), "pipeline": pipeline, "project": project, "complete": complete,
            "exit_code": exit_code, **facts, "gaps": gaps}  # fmt: skip


def describe_failure(pipeline: str, project: str, message: str, exit_code: int) -> dict[str, Any]:
    """The message about a run that failed before it had a receipt."""
    text = f"pdsync {pipeline} of {project}: failed (exit code {exit_code}). {message}"
    return {"text": text, "pipeline": pipeline, "project": project, "complete": False, "exit_code": exit_code}


def post(url: str, facts: Mapping[str, Any]) -> str | None:
    """Post `facts`; the reason if that failed, otherwise None. It does not change the run's result.

    It starts an event loop, so it can't be called inside a running one.
    """
    import aiohttp  # noqa: PLC0415 - slow to import, and most runs post nothing

    body = clean(msgspec.json.encode(facts).decode()).encode()
    try:
        asyncio.run(_post(url, body))
    except (aiohttp.ClientError, OSError, TimeoutError, ConfigError) as error:
        return clean(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    return None


async def _post(url: str, body: bytes) -> None:
    import aiohttp  # noqa: PLC0415 - as above

    headers = {"Content-Type": "application/json"}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session,
        session.post(url, data=body, headers=headers, allow_redirects=False, **proxy_options(proxy_for(url))) as answer,
    ):
        if answer.status >= 300:
            raise OSError(f"it answered {answer.status}")
        log.debug("the webhook was notified")
