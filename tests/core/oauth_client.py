"""A person with a browser at the sandbox's consent page, for the tests of OAuth."""

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec

from pdsync.core.oauth_app import OAuthApp
from pdsync.core.oauth_login import OAuthLogin
from pdsync.sandbox import Limits, OAuthSettings, Sizes, generate_company, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pdsync.core.secret_store import Grant
    from pdsync.sandbox import RunningSandbox


@contextmanager
def a_sandbox(company_id: int = 5550, **options: Any) -> Iterator[RunningSandbox]:
    """A Pipedrive whose refresh tokens work once; using one again revokes the whole grant."""
    company = generate_company(seed=1, sizes=Sizes(deals=3), company_id=company_id)
    with running(company, limits=Limits(burst=None), oauth=OAuthSettings(rotate=True, **options)) as box:
        yield box


def a_port() -> int:
    """A port of this machine that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def app_of(box: RunningSandbox, **changes: Any) -> OAuthApp:
    """The sandbox's app, with a redirect URI on a free port."""
    app = OAuthApp(
        client_id="sandbox-client",
        client_secret="sandbox-secret",
        authorize_url=f"{box.url}/oauth/authorize",
        token_url=f"{box.url}/oauth/token",
        redirect_uri=f"http://127.0.0.1:{a_port()}/callback",
    )
    return msgspec.structs.replace(app, **changes)


async def visit(url: str, **headers: str) -> int:
    """Open `url` as a browser does, which follows every redirect; the status of the last page."""
    async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as response:
        return response.status


async def log_in(box: RunningSandbox, app: OAuthApp | None = None, **options: Any) -> Grant:
    """Log in as a person who opens the address that is shown."""
    login = OAuthLogin(app or app_of(box), box.url)
    visits: list[asyncio.Task[int]] = []
    code = await login.wait_for_code(on_ready=lambda: visits.append(asyncio.create_task(visit(login.url))), **options)
    await asyncio.gather(*visits)
    return await login.exchange(code)
