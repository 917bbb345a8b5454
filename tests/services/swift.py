"""An S3 server that checks signatures: OpenStack Swift with its s3api, four local processes.

Its conditional put is not atomic (several of eight racing writers win): test no race on it.
``python -m tests.services.swift install`` makes its environment ahead of time.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.services.guard import GuardedProcess
from tests.services.ports import reserve_port
from tests.services.swift_configuration import (
    ACCOUNT,
    KEY,
    NAME,
    REGION,
    STORAGE_SERVERS,
    write_configuration,
)
from tests.services.swift_environment import SwiftUnavailable, ensure_swift_venv

__all__ = ["S3Bucket", "SwiftError", "SwiftServer", "SwiftUnavailable", "ensure_swift_venv"]


class SwiftError(Exception):
    """The servers did not start; the message holds the end of what they wrote."""


@dataclass(frozen=True)
class S3Bucket:
    """One bucket and all that a client needs to reach it."""

    endpoint_url: str
    access_key: str
    secret_key: str
    region: str
    name: str

    def client(self) -> Any:
        """A boto3 client for this server (path addressing)."""
        return s3_client(self.endpoint_url, self.access_key, self.secret_key, self.region)


class SwiftServer:
    """``start`` after ``kill`` serves the same objects on the same ports."""

    access_key = f"{ACCOUNT}:{NAME}"
    secret_key = KEY
    region = REGION

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {kind: reserve_port() for kind in (*STORAGE_SERVERS, "proxy")}
        self._processes: list[GuardedProcess] = []
        self._log_path = folder / "servers.log"
        self._client: Any = None

    @property
    def port(self) -> int:
        return self._ports["proxy"]

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return bool(self._processes) and all(process.running for process in self._processes)

    def start(self, *, timeout_seconds: float = 60.0) -> None:
        """Starts the servers, and returns when they answer. Raises SwiftUnavailable, SwiftError."""
        if self.running:
            return
        programs = ensure_swift_venv()
        python = programs / "python"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_attributes()
        try:
            files = write_configuration(self._folder, self._ports, python)
        except subprocess.CalledProcessError as error:
            raise SwiftError(f"building the rings: {error.stderr.decode()}") from error
        self._processes = [
            # Through Python, since a script's first line can't name a path with a space.
            GuardedProcess(
                [str(python), "-I", str(programs / f"swift-{kind}-server"), str(file), "-v"],
                log_path=self._log_path,
                environment={"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": str(self._folder)},
                folder=self._folder,
            )
            for kind, file in files.items()
        ]
        self._wait_ready(time.monotonic() + timeout_seconds)

    def kill(self) -> None:
        """``kill -9`` of all four servers."""
        for process in self._processes:
            process.kill()
        self._processes = []

    def new_bucket(self) -> S3Bucket:
        """A fresh, empty bucket."""
        name = f"test-{uuid.uuid4().hex}"
        bucket = S3Bucket(self.endpoint_url, self.access_key, self.secret_key, self.region, name)
        if self._client is None:  # making one takes longer than making a bucket
            self._client = bucket.client()
        self._client.create_bucket(Bucket=name)
        return bucket

    def _wait_ready(self, deadline: float) -> None:
        waiting = set(self._ports.values())
        while waiting:
            if not self.running or time.monotonic() > deadline:
                self.kill()
                tail = "\n".join(self._log_path.read_text(errors="replace").splitlines()[-30:])
                raise SwiftError(f"Swift did not start; the end of its log:\n{tail}")
            waiting = {port for port in waiting if not _listens(port)}
            time.sleep(0.02)

    def _check_attributes(self) -> None:
        """Swift keeps an object's metadata in extended attributes of its file."""
        try:
            os.setxattr(self._folder, b"user.pressrun", b"1")
        except OSError as error:
            raise SwiftUnavailable(
                f"the file system of {self._folder} has no user extended attributes ({error}); "
                "set TMPDIR to a folder that has, such as one on ext4"
            ) from error


def s3_client(endpoint_url: str, access_key: str, secret_key: str, region: str) -> Any:
    """A boto3 client that reads no configuration of this machine but what it is given."""
    session = boto3.session.Session(
        aws_access_key_id=access_key, aws_secret_access_key=secret_key, region_name=region
    )
    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2})
    return session.client("s3", endpoint_url=endpoint_url, config=config)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    if sys.argv[1:] != ["install"]:
        sys.exit("usage: python -m tests.services.swift install")
    sys.stdout.write(f"{ensure_swift_venv()}\n")
