"""A real S3 server on loopback (moto), which a test can take away and bring back; its data stays."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

from contracts.settings import Settings
from ops.embedded import free_port

BUCKET = "recordings"


class S3:
    """The server; `settings` are those of an installation that uses it."""

    def __init__(self) -> None:
        self._port = free_port()
        self._server: ThreadedMotoServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def environ(self) -> dict[str, str]:
        return {
            "RETOLD_S3_ENDPOINT": self.url,
            "RETOLD_S3_BUCKET": BUCKET,
            "RETOLD_S3_KEY_ID": "testing",
            "RETOLD_S3_SECRET": "testing",
        }

    def settings(self, data: Path, nats_url: str = "nats://127.0.0.1:1", **more: object) -> Settings:
        return Settings(
            data=data,
            nats_url=nats_url,
            s3_endpoint=self.url,
            s3_bucket=BUCKET,
            s3_key_id="testing",
            s3_secret="testing",  # noqa: S106  # moto asks for none
            **more,
        )

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",  # noqa: S106  # as above
        )

    def contents(self) -> dict[str, bytes]:
        """Every object of the bucket."""
        client = self.client()
        listed = client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {each["Key"]: client.get_object(Bucket=BUCKET, Key=each["Key"])["Body"].read() for each in listed}

    def damage(self, key: str) -> None:
        """Flip a bit in the middle of an object."""
        client = self.client()
        content = bytearray(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
        content[len(content) // 2] ^= 1
        client.put_object(Bucket=BUCKET, Key=key, Body=bytes(content))


@contextlib.contextmanager
def running_s3() -> Iterator[S3]:
    """A server with an empty bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    s3 = S3()
    s3.start()
    try:
        s3.client().create_bucket(Bucket=BUCKET)
        yield s3
        if s3._server is None:
            s3.start()
        for key in s3.contents():
            s3.client().delete_object(Bucket=BUCKET, Key=key)
        s3.client().delete_bucket(Bucket=BUCKET)
    finally:
        s3.stop()
