"""Rolls one account up as the child of a fleet: `python -m pdsync.fleet.rollup_child PID REQUEST`.

In a process of its own it can be killed when it hangs or its lease is lost, and its memory is free when it ends. What
it did, or what went wrong, is the last line of stdout, as JSON.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from pdsync.core.disk import storage_error
from pdsync.core.log import clean_error
from pdsync.errors import PdsyncError
from pdsync.fleet.accounts import Account  # noqa: TC001 - as above
from pdsync.fleet.child import end_with
from pdsync.fleet.process import CHILDREN, GRACE_S, Child
from pdsync.fleet.rollup import RolledUp, RollUpTarget, roll_up_account

if TYPE_CHECKING:
    from collections.abc import Callable


class Failure(Struct, frozen=True):
    """Why an account is not rolled up."""

    error: str  # the class, as in pdsync.errors
    exit_code: int
    message: str


# Made when this module is imported: msgspec crashes when threads are the first to decode a type side by side.
_FAILURES = msgspec.json.Decoder(Failure)
_RESULTS = msgspec.json.Decoder(RolledUp)


class _Request(Struct, frozen=True):
    target: RollUpTarget
    account: Account
    full: bool = False


def run(
    target: RollUpTarget,
    account: Account,
    run_id: str,
    timeout_s: float,
    on_lost: Callable[[Callable[[], None]], None] = lambda end: None,
    *,
    full: bool = False,
) -> RolledUp | Failure:
    """Roll the account up in a child of this process.

    Args:
        target: the roll-up.
        account: whose folder is on this machine.
        run_id: of the fleet; a run that is stopped starts no child.
        timeout_s: after which the child is stopped.
        on_lost: is called with what ends the child, and calls that when another worker may run the account.
        full: write all files, whether they are the same or not.

    Returns:
        What it did, or why the account is not rolled up.
    """
    request = msgspec.json.encode(_Request(target, account, full), enc_hook=str).decode()
    command = [sys.executable, "-P", "-m", "pdsync.fleet.rollup_child", str(os.getpid()), request]
    with CHILDREN.start(run_id, lambda: Child(command, os.environ, min(GRACE_S, timeout_s))) as child:
        if child is None:
            return Failure("", 130, "It was not rolled up: the run was stopped.")
        on_lost(child.kill)
        lines = list(child.lines(timeout_s))
    if child.is_overdue and child.exit_code:
        return Failure("Timeout", 1, f"Its roll-up did not end within {timeout_s:g} s, and was stopped.")
    last = lines[-1] if lines else b""
    try:
        return _FAILURES.decode(last) if child.exit_code else _RESULTS.decode(last)
    except msgspec.DecodeError:
        text = f"Its roll-up ended with {child.exit_code}.\n{child.stderr.decode('utf-8', 'replace')}".strip()
        return Failure("Killed" if child.exit_code < 0 else "", 1, text)


def _to_path(kind: type, value: Any) -> Any:
    return kind(value)


def main(parent: int, text: str) -> int:
    """Roll up what `text` requests; the exit code."""
    os.umask(0o077)
    end_with(parent)
    request = msgspec.json.decode(text, type=_Request, dec_hook=_to_path)
    try:
        done = roll_up_account(request.target, request.account, full=request.full)
    except Exception as error:
        problem = error if isinstance(error, PdsyncError) else storage_error(error)
        code = problem.exit_code if problem else 1
        failure = Failure(type(problem or error).__name__, code, clean_error(str(problem or error)))
        sys.stdout.write(msgspec.json.encode(failure).decode() + "\n")
        return code
    sys.stdout.write(msgspec.json.encode(done).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
