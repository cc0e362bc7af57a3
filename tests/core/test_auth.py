"""Which secret authenticates a project's requests, and that the newest one that is stored wins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pdsync.core import auth, config
from pdsync.core.secret_store import StoredToken, Vault
from pdsync.errors import AuthError

from .vaults import TOKEN, Ring, headers_of

if TYPE_CHECKING:
    from pdsync.core.config import Settings

pytestmark = pytest.mark.usefixtures("no_keyring")


def test_without_a_token_the_error_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(AuthError, match=r"pdsync auth login \(or set PDSYNC_API_TOKEN\)"):
        auth.credentials(settings)
    assert not settings.state.exists()  # looking leaves no trace


def test_the_environment_wins_over_the_keyring_and_the_keyring_over_an_older_file(
    settings: Settings, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Vault(settings)
    with box.locked():
        box.put(StoredToken("from-the-file"), "file")
        assert headers_of(settings) == {"x-api-token": "from-the-file"}
        ring.kept["pdsync", f"{settings.base_url} {settings.project}"] = '{"type":"api_token","token":"from-the-ring"}'
    assert headers_of(settings) == {"x-api-token": "from-the-ring"}
    monkeypatch.setenv("PDSYNC_API_TOKEN", "  from-the-environment\n")
    assert headers_of(settings) == {"x-api-token": "from-the-environment"}


def test_x3_a_token_belongs_to_one_base_url(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    auth.store(settings, StoredToken(TOKEN))
    sandbox = config.load(settings.project, {"account.base_url": "http://127.0.0.1:8765"})
    with pytest.raises(AuthError, match=r"no token for http://127\.0\.0\.1:8765"):
        auth.credentials(sandbox)
    auth.store(sandbox, StoredToken("sandbox-token"))
    assert headers_of(settings) == {"x-api-token": TOKEN}
    assert auth.forget(sandbox) == ["file"]
    assert headers_of(settings) == {"x-api-token": TOKEN}


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "tab\there", "zero\0byte", "ünïcode-token", "   "])
def test_what_no_header_can_carry_is_no_token(settings: Settings, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    with pytest.raises(AuthError) as caught:
        auth.check_token(token, "as given")
    assert not token.strip() or token not in str(caught.value)


@pytest.mark.parametrize(("secret", "says"), [("  ", "is empty"), ("two words", "has blanks"), ("sécret", "has")])
def test_a_malformed_client_secret_is_copied_from_the_app_and_not_as_a_token(secret: str, says: str) -> None:
    with pytest.raises(AuthError, match=f"^The client secret {says}") as refused:
        auth.check_client_secret(secret)
    assert "Personal preferences" not in str(refused.value)
    assert ("Developer Hub" in str(refused.value)) == bool(secret.strip())


@pytest.mark.parametrize("saved_at", [5.0, 10.0, 20.0])
def test_what_is_stored_last_is_newer_whatever_the_clock_says(settings: Settings, saved_at: float) -> None:
    auth.store(settings, StoredToken("before-it", saved_at=10.0))
    auth.store(settings, StoredToken("after-it", saved_at=saved_at))
    stored = auth.find_secret(settings)
    assert stored
    assert isinstance(stored.secret, StoredToken)
    assert stored.secret.token == "after-it"
    assert stored.secret.saved_at > 10.0
