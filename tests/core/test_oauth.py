"""OAuth grants: renewed in time, once, stored whole, and by several processes at once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keyring.backends.fail
import keyring.core
import msgspec
import pytest

from pdsync.core import auth, config, oauth, oauth_token, secret_store
from pdsync.core.budget import Budget
from pdsync.core.control import Control
from pdsync.core.http import Http
from pdsync.core.log import clean
from pdsync.core.oauth import OAuth
from pdsync.core.request import Request
from pdsync.core.secret_store import Grant, StoredToken, Vault
from pdsync.errors import AuthError, BadAnswer, ServerTrouble, StorageError, WrongCompany
from tests.core.oauth_client import a_sandbox, log_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pdsync.core.config import Settings
    from pdsync.sandbox import RunningSandbox

RACES = int(os.environ.get("PDSYNC_RACES", "10"))  # the promise is about 1,000: PDSYNC_RACES=1000
PROCESSES = 8

WORKER = """
import asyncio, sys
from pathlib import Path
from pdsync.core import auth, config
from pdsync.core.budget import Budget
from pdsync.core.http import Http
from pdsync.core.request import Request

async def call(credentials):
    budget = Budget(settings.control, credentials.ledger_key, burst=0, daily_tokens=0)
    async with Http(settings.base_url, credentials, budget) as http:
        await http.send(Request(method="GET", path="/v1/users/me", cost=2, label="me"))
    budget.close()

settings = config.load(Path(sys.argv[1]))
while sys.stdin.readline():
    try:
        credentials = auth.credentials(settings)
        print("loaded", flush=True)
        sys.stdin.readline()
        asyncio.run(call(credentials))
        print("ok", flush=True)
    except Exception as error:
        print("failed:", repr(error), flush=True)
"""


@pytest.fixture(autouse=True)
def no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PDSYNC_API_TOKEN", raising=False)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    monkeypatch.setattr(keyring.core, "_keyring_backend", keyring.backends.fail.Keyring())  # type: ignore[no-untyped-call]
    monkeypatch.setattr(secret_store, "_silent", threading.Event())
    monkeypatch.setattr(oauth_token, "_BACKOFF_S", 0.01)
    monkeypatch.setattr(oauth, "_ADOPT_S", 0.6)


@pytest.fixture
def box() -> Iterator[RunningSandbox]:
    """A Pipedrive whose refresh tokens work once; using one again revokes the whole grant."""
    with a_sandbox() as found:
        yield found


@pytest.fixture
def settings(tmp_path: Path, box: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PDSYNC_BASE_URL", box.url)
    return config.load(tmp_path)


@pytest.fixture
async def grant(box: RunningSandbox, settings: Settings) -> Grant:
    """A grant, stored."""
    found = await log_in(box)
    assert auth.store(settings, found) == "file"
    return found


async def whoami(settings: Settings, credentials: OAuth) -> dict[str, Any]:
    Control(settings.control).close()
    budget = Budget(settings.control, credentials.ledger_key, burst=0, daily_tokens=0)
    try:
        async with Http(settings.base_url, credentials, budget, backoff_s=0.01) as http:
            answer = await http.send(Request(method="GET", path="/v1/users/me", cost=2, label="me"))
    finally:
        budget.close()
    found: dict[str, Any] = msgspec.json.decode(answer.body)["data"]
    return found


def credentials(settings: Settings) -> OAuth:
    found = auth.credentials(settings)
    assert isinstance(found, OAuth)
    return found


def stored(settings: Settings) -> Grant:
    found = Vault(settings).find()
    assert found
    assert isinstance(found.secret, Grant)
    return found.secret


def exchanges(box: RunningSandbox) -> int:
    return sum(seen.path == "/oauth/token" for seen in box.log)


@pytest.mark.parametrize(
    "domain",
    [
        "https://evil.example",
        "https://pipedrive.com.evil.example",
        "http://acme.pipedrive.com",
        "https://acme.pipedrive.com@evil.example",
        "https://evil.example/.pipedrive.com",
        "evil.example",
    ],
)
async def test_x3_an_api_domain_that_points_elsewhere_is_refused(
    box: RunningSandbox, settings: Settings, grant: Grant, domain: str
) -> None:
    box.oauth.api_domain = domain
    before = (settings.state / "credentials.json").read_bytes()
    with pytest.raises(AuthError, match="not Pipedrive"):
        await log_in(box)
    box.oauth.expire_access_tokens()
    with pytest.raises(AuthError, match="not Pipedrive"):
        await whoami(settings, credentials(settings))
    kept = msgspec.json.decode((settings.state / "credentials.json").read_bytes())
    assert kept == msgspec.json.decode(before)


async def test_a_renamed_domain_of_the_same_company_passes(
    box: RunningSandbox, settings: Settings, grant: Grant
) -> None:
    box.oauth.api_domain = "https://acme-renamed.pipedrive.com"
    box.oauth.expire_access_tokens()
    assert (await whoami(settings, credentials(settings)))["company_id"] == 5550
    assert stored(settings).api_domain == "https://acme-renamed.pipedrive.com"


async def test_x3_the_token_endpoint_is_not_followed_elsewhere(
    box: RunningSandbox, settings: Settings, grant: Grant
) -> None:
    with a_sandbox() as thief:
        box.faults.add(kind="redirect", path="/oauth/token", to=f"{thief.url}/oauth/token")
        box.oauth.expire_access_tokens()
        with pytest.raises(BadAnswer):
            await whoami(settings, credentials(settings))
        assert not thief.log
    assert stored(settings).refresh_token == grant.refresh_token


# Renewing.


async def test_a_401_renews_the_grant_and_the_request_goes_out_once_more(
    box: RunningSandbox, settings: Settings, grant: Grant
) -> None:
    used = credentials(settings)
    box.oauth.expire_access_tokens()
    box.clear_log()
    assert (await whoami(settings, used))["company_id"] == 5550
    assert [(seen.path, seen.status) for seen in box.log] == [
        ("/v1/users/me", 401),
        ("/oauth/token", 200),
        ("/v1/users/me", 200),  # whose the new token is, before it is used
        ("/v1/users/me", 200),
    ]
    assert stored(settings).access_token != grant.access_token
    assert used.ledger_key == "oauth sandbox-client 5550"


async def test_a_renewal_goes_to_the_token_url_of_the_login_with_its_app(
    box: RunningSandbox, settings: Settings, grant: Grant
) -> None:
    with a_sandbox() as proxy:  # in front of the same company
        auth.store(settings, msgspec.structs.replace(grant, token_url=f"{proxy.url}/oauth/token", refresh_token="none"))
        used = credentials(settings)
        box.oauth.expire_access_tokens()
        with pytest.raises(AuthError, match=r"(?s)refresh_token is invalid.*What was fetched is kept"):
            await whoami(settings, used)
        assert [seen.form for seen in proxy.log] == ["grant_type=refresh_token&client_id=sandbox-client"]
    assert exchanges(box) == 1


async def test_a_grant_from_before_the_token_url_was_stored_is_renewed(
    box: RunningSandbox, settings: Settings, grant: Grant
) -> None:
    fields = ("authorize_url", "token_url", "redirect_uri", "scopes", "granted_scopes")
    file = settings.state / "credentials.json"
    content = msgspec.json.decode(file.read_bytes())
    for name in fields:
        del content["secrets"][box.url][name]
    file.write_bytes(msgspec.json.encode(content))
    box.oauth.expire_access_tokens()
    assert (await whoami(settings, credentials(settings)))["company_id"] == 5550
    assert stored(settings).granted_scopes == grant.granted_scopes


@pytest.mark.parametrize("rotates", [True, False])
async def test_whatever_a_renewal_brings_is_stored(
    box: RunningSandbox, settings: Settings, grant: Grant, rotates: bool
) -> None:
    if not rotates:
        box.faults.add(kind="mutate", path="/oauth/token", find='"refresh_token"', replace='"unknown"')
    box.oauth.settings.scopes = "base deals:read"
    box.oauth.expire_access_tokens()
    assert (await whoami(settings, credentials(settings)))["company_id"] == 5550
    kept = stored(settings)
    assert kept.access_token != grant.access_token
    assert (kept.refresh_token != grant.refresh_token) is rotates  # an answer without one leaves the old one
    assert kept.granted_scopes == ("base", "deals:read")
    assert (kept.client_secret, kept.token_url, kept.redirect_uri) == (
        grant.client_secret,
        grant.token_url,
        grant.redirect_uri,
    )


async def test_a_token_that_stays_refused_is_renewed_once(
    box: RunningSandbox, settings: Settings, grant: Grant
) -> None:
    used = credentials(settings)
    box.faults.add(kind="401", path="/v1/users/me")
    with pytest.raises(AuthError):
        await whoami(settings, used)
    assert exchanges(box) == 2  # the login, and one renewal


async def test_many_tasks_of_one_process_renew_once(box: RunningSandbox, settings: Settings, grant: Grant) -> None:
    used = credentials(settings)
    refused = await used.headers()
    box.oauth.expire_access_tokens()
    assert all(await asyncio.gather(*(used.refresh(refused) for _ in range(20))))
    assert exchanges(box) == 2


async def test_a_grant_is_renewed_five_minutes_before_its_end(
    box: RunningSandbox, settings: Settings, grant: Grant
) -> None:
    auth.store(settings, msgspec.structs.replace(grant, renew_at=time.time() - 1, expires_at=time.time() + 299))
    used = credentials(settings)
    assert await used.headers() != {"Authorization": f"Bearer {grant.access_token}"}
    assert await used.headers() == {"Authorization": f"Bearer {stored(settings).access_token}"}
    assert exchanges(box) == 2


async def test_trouble_with_an_early_renewal_does_not_stop_a_run(
    box: RunningSandbox, settings: Settings, grant: Grant
) -> None:
    auth.store(settings, msgspec.structs.replace(grant, renew_at=time.time() - 1, expires_at=time.time() + 299))
    used = credentials(settings)
    box.faults.add(kind="status", status=503, path="/oauth/token")
    for _ in range(3):
        assert await used.headers() == {"Authorization": f"Bearer {grant.access_token}"}
    assert exchanges(box) == 1 + 4  # the attempts of one renewal; the next waits a minute


async def test_trouble_when_the_token_has_ended_is_reported(
    box: RunningSandbox, settings: Settings, grant: Grant
) -> None:
    auth.store(settings, msgspec.structs.replace(grant, renew_at=0.0, expires_at=0.0))
    used = credentials(settings)
    box.faults.add(kind="status", status=503, path="/oauth/token")
    with pytest.raises(ServerTrouble, match="run the same command again"):
        await used.headers()


async def test_x9_a_lost_grant_is_reported_and_never_deleted(
    box: RunningSandbox, settings: Settings, grant: Grant
) -> None:
    used = credentials(settings)
    auth.store(settings, msgspec.structs.replace(grant, refresh_token="spent-long-ago"))
    box.oauth.expire_access_tokens()
    with pytest.raises(AuthError, match="pdsync auth login --oauth"):
        await whoami(settings, used)
    assert stored(settings).refresh_token == "spent-long-ago"


async def test_x9_invalid_grant_adopts_what_another_machine_has_renewed(
    box: RunningSandbox, settings: Settings, grant: Grant
) -> None:
    """On a shared disk locks may not reach the other machine: its renewal comes in between."""
    used = credentials(settings)
    box.oauth.expire_access_tokens()
    fresh = await log_in(box)
    broken = msgspec.structs.replace(grant, refresh_token="spent-by-the-other", saved_at=grant.saved_at + 1)
    auth.store(settings, broken)

    async def write_late() -> None:
        await asyncio.sleep(0.2)  # without the lock, as that machine does
        Vault(settings).put(msgspec.structs.replace(fresh, saved_at=broken.saved_at + 1), "file")

    late = asyncio.create_task(write_late())
    assert (await whoami(settings, used))["company_id"] == 5550
    await late
    assert stored(settings).refresh_token == fresh.refresh_token


async def test_x9_a_cancelled_run_keeps_the_grant_that_was_under_way(
    box: RunningSandbox, settings: Settings, grant: Grant
) -> None:
    used = credentials(settings)
    box.oauth.expire_access_tokens()
    box.faults.add(kind="latency", ms=600, path="/oauth/token")
    task = asyncio.create_task(whoami(settings, used))
    while not box.faults.scripted[0].struck:  # then the request is on its way
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(60):
        while stored(settings).refresh_token == grant.refresh_token:
            await asyncio.sleep(0.05)
    assert (await whoami(settings, credentials(settings)))["company_id"] == 5550


async def test_x9_a_disk_that_is_full_shows_before_the_refresh_token_is_spent(
    box: RunningSandbox, settings: Settings, grant: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = credentials(settings)
    box.oauth.expire_access_tokens()
    Control(settings.control).close()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(secret_store, "write_private", full)
        with pytest.raises(StorageError, match="No space left"):
            await whoami(settings, used)
    assert exchanges(box) == 1
    assert (await whoami(settings, credentials(settings)))["company_id"] == 5550


async def test_x1_a_renewal_that_brings_another_company_is_refused(
    box: RunningSandbox, settings: Settings, grant: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = credentials(settings)
    box.oauth.expire_access_tokens()
    box.faults.add(kind="mutate", path="/v1/users/me", find='"company_id":5550', replace='"company_id":6660')
    with pytest.raises(WrongCompany) as caught:
        await whoami(settings, used)
    assert (caught.value.expected, caught.value.found) == (5550, 6660)
    assert stored(settings).company_id == 5550


async def test_x1_another_login_while_a_run_is_under_way_is_not_picked_up(
    box: RunningSandbox, settings: Settings, grant: Grant
) -> None:
    used = credentials(settings)
    box.oauth.expire_access_tokens()
    other = msgspec.structs.replace(grant, company_id=6660, access_token="of-another-company", saved_at=time.time())
    auth.store(settings, other)
    with pytest.raises(WrongCompany):
        await whoami(settings, used)
    auth.store(settings, StoredToken("an-api-token", saved_at=time.time()))
    with pytest.raises(AuthError, match="Other credentials"):
        await whoami(settings, used)
    auth.forget(settings)
    with pytest.raises(AuthError, match="logged out"):
        await whoami(settings, used)
    assert exchanges(box) == 1


async def test_x9_a_login_wins_over_a_renewal_that_came_in_between(
    box: RunningSandbox, settings: Settings, grant: Grant
) -> None:
    """Its code was traded before the renewal, and it is stored after it. The run that renewed uses it from then on."""
    login = await log_in(box)
    used = credentials(settings)
    box.oauth.expire_access_tokens()
    assert (await whoami(settings, used))["company_id"] == 5550
    renewed = stored(settings)
    assert renewed.saved_at > login.saved_at
    auth.store(settings, login)
    assert stored(settings).saved_at > renewed.saved_at
    box.oauth.expire_access_tokens()
    assert (await whoami(settings, used))["company_id"] == 5550
    assert stored(settings).redirect_uri == login.redirect_uri != grant.redirect_uri


async def test_x2_new_tokens_are_hidden_before_they_are_used(
    box: RunningSandbox, settings: Settings, grant: Grant
) -> None:
    box.oauth.expire_access_tokens()
    await whoami(settings, credentials(settings))
    fresh = stored(settings)
    for secret in (grant.access_token, grant.refresh_token, fresh.access_token, fresh.refresh_token, "sandbox-secret"):
        assert secret not in clean(f"<{secret}>")


# Several processes.


@contextmanager
def processes(settings: Settings, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(settings.project)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def tell(worker: subprocess.Popen[str]) -> None:
    assert worker.stdin
    worker.stdin.write("go\n")
    worker.stdin.flush()


def hear(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout
    return worker.stdout.readline().strip()


@pytest.mark.timeout(900)
def test_x9_two_processes_and_a_single_use_refresh_token(box: RunningSandbox, settings: Settings) -> None:
    """Two to eight processes find the same access token refused at once: no grant is lost, in any race."""
    auth.store(settings, asyncio.run(log_in(box)))
    Control(settings.control).close()
    chance = random.Random(9)
    with processes(settings, PROCESSES) as workers:
        for race in range(RACES):
            racing = chance.sample(workers, chance.randint(2, PROCESSES))
            for worker in racing:
                tell(worker)
            assert [hear(worker) for worker in racing] == ["loaded"] * len(racing)
            box.oauth.expire_access_tokens()
            for worker in racing:
                tell(worker)
            assert [hear(worker) for worker in racing] == ["ok"] * len(racing), f"race {race}"
            assert exchanges(box) == 2 + race  # one of them renewed; the others adopted what it got
    assert {path.name for path in settings.state.iterdir() if "credentials" in path.name} == {
        "credentials.json",
        "credentials.lock",
    }


def test_x9_a_process_that_is_killed_while_it_has_the_lock_delays_no_other(
    box: RunningSandbox, settings: Settings
) -> None:
    auth.store(settings, asyncio.run(log_in(box)))
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from pdsync.core import config, secret_store\n"
            "with secret_store.Vault(config.load(Path(sys.argv[1]))).locked():\n"
            "    print('held', flush=True); time.sleep(60)",
            str(settings.project),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert hear(holder) == "held"
        threading.Timer(0.3, lambda: holder.send_signal(signal.SIGKILL)).start()
        box.oauth.expire_access_tokens()
        began = time.monotonic()
        assert asyncio.run(whoami(settings, credentials(settings)))["company_id"] == 5550
        assert 0.2 < time.monotonic() - began < 10
    finally:
        holder.kill()
        holder.communicate()
