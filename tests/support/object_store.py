"""A local S3 server with a bucket, in a process of its own."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.request import ProxyHandler, Request, build_opener

if TYPE_CHECKING:
    from collections.abc import Iterator

_open = build_opener(ProxyHandler({})).open  # never through a proxy


@dataclass(frozen=True)
class S3:
    """The server: its address, the URL of its bucket, and the environment with which programs use it."""

    endpoint: str
    url: str
    env: dict[str, str]


@contextlib.contextmanager
def serving_s3(bucket: str = "lake") -> Iterator[S3]:
    """A server on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    endpoint = f"http://127.0.0.1:{port}"
    try:
        for _ in range(400):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        _open(Request(f"{endpoint}/{bucket}", method="PUT"), timeout=60).close()
        yield S3(
            endpoint,
            f"s3://{bucket}",
            {
                "AWS_ACCESS_KEY_ID": "a",
                "AWS_SECRET_ACCESS_KEY": "b",
                "AWS_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": endpoint,
            },
        )
    finally:
        process.terminate()
        process.wait(20)
