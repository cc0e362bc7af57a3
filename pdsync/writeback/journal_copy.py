"""Waits until a copy of the journal is safe elsewhere, where a fleet keeps its accounts in a store.

The worker that started this command names a socket in its environment. It uploads the new lines of the journal when
asked to, and answers when the store has them. Without that a lost disk would lose what was sent, and the next worker
would send it again.
"""

from __future__ import annotations

import os
import socket

from pdsync.errors import NotCopied

VARIABLE = "PDSYNC_JOURNAL_COPY"
COPIED = "copied"
_PATIENCE_S = 300.0


def wait_for_copy() -> None:
    """Return when the lines that are on disk are copied, or at once if no copy is kept.

    Raises:
        NotCopied: they are not. Nothing may be sent.
    """
    address = os.environ.get(VARIABLE)
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE_S)
            connection.connect(address)
            connection.sendall(b"copy\n")
            with connection.makefile("r", encoding="utf-8") as response:
                text = response.readline().strip()
    except OSError as error:
        text = f"the worker of this account does not respond ({error})"
    if text != COPIED:
        raise NotCopied(
            f"What is to be sent could not be copied to the store: {text or 'the worker of this account has ended'}.\n"
            f"Nothing is sent that is not there first. Run the same command again."
        )
