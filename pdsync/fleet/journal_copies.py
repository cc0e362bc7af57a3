"""Serves a running command the copy of its queue's journal: it waits for it before it sends a change.

The command connects to a socket of this machine and writes a line; the response is `copied`, or why it was not
(`pdsync.writeback.journal_copy`).
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from typing import TYPE_CHECKING

from pdsync.core.log import clean_error
from pdsync.errors import PdsyncError
from pdsync.writeback import journal_copy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def serve_copies(copy: Callable[[], None]) -> Iterator[dict[str, str]]:
    """Call `copy` for each request of a command, in another thread.

    Args:
        copy: returns when the journal is copied; raises PdsyncError or OSError if it can't be.

    Yields:
        The variables with which a command finds the socket.
    """
    folder = tempfile.mkdtemp(prefix="pdsync-")  # short: the name of a socket has 104 bytes at most
    address, ended = f"{folder}/journal", threading.Event()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen()

        def work() -> None:
            while not ended.is_set():
                with contextlib.suppress(OSError):  # a command was killed
                    connection, _ = server.accept()
                    with connection:
                        connection.settimeout(10)
                        if connection.recv(64):
                            connection.sendall(f"{_attempt(copy)}\n".encode())

        thread = threading.Thread(target=work, name="copies of the journal", daemon=True)
        thread.start()
        try:
            yield {journal_copy.VARIABLE: address}
        finally:
            ended.set()
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as last:
                last.connect(address)  # so that the thread waits no longer
            thread.join()
            shutil.rmtree(folder, ignore_errors=True)


def _attempt(copy: Callable[[], None]) -> str:
    try:
        copy()
    except (PdsyncError, OSError) as error:
        return clean_error(str(error)).replace("\n", " ")
    return journal_copy.COPIED
