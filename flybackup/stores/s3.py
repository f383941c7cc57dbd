"""A store in an S3 bucket, or in anything that speaks S3's protocol. The only place that knows boto3.

What is asked of the server: strong read-after-write consistency, `Date` headers, ranges, and conditional creation
(`If-None-Match: *`, AWS "Conditional writes", RFC 9110 13.1.2), which `flybackup.stores.conditional` proves.
"""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from flybackup.errors import ConfigError, ObjectExistsError, StoreError
from flybackup.stores import Buffer, ObjectInfo, check_key, check_prefix, check_range, is_key
from flybackup.stores.s3_errors import code_of, failure, refusal, status_of

_AWS = ("amazonaws.com", "amazonaws.com.cn", "amazonaws.eu", "api.aws")

_VIRTUAL_ONLY = (*_AWS, "tigris.dev", "storage.dev")
"""Where the bucket is part of the host name. Tigris has refused path-style for new buckets since 19 February 2025;
everywhere else path-style works without wildcard DNS and certificates."""

_SMALL = 1024 * 1024
"""Bodies up to this are given to boto as bytes: for file-like ones it sends `Expect: 100-continue` and waits for the
answer, which is worth a round trip only when it can spare a large upload."""

_CONFLICT, _TAKEN = 409, 412
"""Refusals of a conditional write: another one is under way; the key is taken."""


@dataclass(frozen=True, slots=True)
class AccessKey:
    """Credentials; not shown by `repr`."""

    id: str
    secret: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """How to reach a bucket. None means: as boto3 finds it (environment, profile, instance role).

    A stalled server costs `attempts` times `read_seconds`. `connections` bounds the threads that make progress at once.
    """

    endpoint_url: str | None = None
    region: str | None = None
    path_style: bool | None = None
    access_key: AccessKey | None = None
    connect_seconds: float = 10
    read_seconds: float = 60
    attempts: int = 3
    connections: int = 16


class S3Store:
    """Objects under *prefix* of *bucket*.

    Away from AWS no checksum headers are sent that other servers do not know; integrity in transit is then that of the
    signed SHA-256 of the body (0.9 s of processor time a gigabyte on x86 with SHA instructions), which AWS over TLS
    replaces by a CRC. An upload is never copied as a whole; a download is held once.
    """

    def __init__(self, bucket: str, prefix: str = "", options: S3Options | None = None) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        with _translated(self.url):
            self._client = _client(bucket, options or S3Options())

    @property
    def url(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def put(self, key: str, data: Buffer) -> datetime:
        with _translated(self._where(key)), _body(data) as body:
            return self._written(self._client.put_object(**self._object(key), Body=body))

    def create(self, key: str, data: Buffer) -> datetime:
        with _translated(self._where(key)):
            try:
                with _body(data) as body:
                    return self._written(self._client.put_object(**self._object(key), Body=body, IfNoneMatch="*"))
            except ClientError as exc:
                if status_of(exc) not in {_CONFLICT, _TAKEN}:
                    raise
                return self._judge(key, data, exc)

    def _judge(self, key: str, data: Buffer, refused: ClientError) -> datetime:
        """Return when *key* was created if it was by us; raise `ObjectExistsError` if by somebody else.

        boto repeats a request whose answer was lost, and the repetition finds the object that the first attempt made.
        What flybackup creates holds a random id, so an object with our very bytes can only be our own.
        """
        if status_of(refused) == _CONFLICT or refused.response["ResponseMetadata"].get("RetryAttempts"):
            try:
                found, content = self._fetch(key)
            except ClientError:
                raise refused from None  # nobody has made it yet: the conflict passes
            if content == data:
                return _aware(found["LastModified"])
        raise ObjectExistsError(f"{key} exists already in {self.url}") from refused

    def get(self, key: str, *, offset: int = 0, length: int | None = None) -> bytes:
        check_range(offset, length)
        with _translated(self._where(key)):
            if not offset and length is None:
                return self._fetch(key)[1]
            last = "" if length is None else offset + length - 1
            response, content = self._fetch(key, Range=f"bytes={offset}-{last}")
            _check_content_range(self._where(key), response, offset, length)
            return content

    def _fetch(self, key: str, **wanted: str) -> tuple[dict[str, Any], bytes]:
        response = self._client.get_object(**self._object(key), **wanted)
        with closing(response["Body"]) as body:
            content: bytes = body.read()
        if len(content) != response.get("ContentLength", len(content)):
            raise StoreError(f"{self._where(key)}: the answer broke off after {len(content)} bytes", retryable=True)
        return response, content

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        where = f"{self.url}/{check_prefix(prefix)}"
        with _translated(where):
            previous = ""
            for info in self._pages(where, self._prefix + prefix):
                if info.key <= previous:
                    raise StoreError(f"{where}: the server lists {info.key} after {previous}, which is out of order")
                previous = info.key
                yield info

    def _pages(self, where: str, prefix: str) -> Iterator[ObjectInfo]:
        page: dict[str, Any] = {}
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
            if "IsTruncated" not in page:
                # boto would take the login page of a hotel's network for an empty listing.
                raise StoreError(f"{where}: what answers there is not S3", hint=_NOT_S3)
            for item in page.get("Contents", ()):
                key = item["Key"].removeprefix(self._prefix)
                if is_key(key):
                    yield ObjectInfo(key, item["Size"])
        # boto takes a page without a continuation token for the last, whatever the page itself says.
        if page.get("IsTruncated"):
            raise StoreError(f"{where}: the server broke off its listing", retryable=True)

    def delete(self, key: str) -> None:
        with _translated(self._where(key)):
            try:
                self._client.delete_object(**self._object(key))
            except ClientError as exc:
                if code_of(exc) not in {"NoSuchKey", "404"}:
                    raise

    def _object(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}{check_key(key)}"}

    def _where(self, key: str) -> str:
        return f"{self.url}/{key}"

    def _written(self, response: Mapping[str, Any]) -> datetime:
        """Return the server's clock reading; raise `StoreError` for an answer that does not confirm a write."""
        if not response.get("ETag"):
            raise StoreError(f"{self.url}: a write was answered, but not by S3", hint=_NOT_S3)
        try:
            return _aware(parsedate_to_datetime(response["ResponseMetadata"]["HTTPHeaders"].get("date", "")))
        except ValueError as exc:
            raise StoreError(f"{self.url}: the server's answer has no date", hint=_NO_DATE) from exc


_NOT_S3 = "Is a proxy or a network's login page in between?"
_NO_DATE = "Times are those of the store's clock: is there a proxy that removes its Date header?"


def open_s3(url: str, env: Mapping[str, str], *, addressing: str | None = None) -> S3Store:
    """Open `s3://bucket/prefix`, optionally with `?endpoint=…&region=…&addressing=path|virtual`, which come first.

    *env* gives AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_REGION, AWS_DEFAULT_REGION and the access key; what it does
    not give, boto3 looks for in its own places. Raise `ConfigError` for a URL that cannot be.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = query.keys() - {"endpoint", "region", "addressing"}
    addressing = query.get("addressing", addressing)
    if parts.scheme != "s3" or not parts.netloc or unknown or addressing not in {None, "path", "virtual"}:
        raise ConfigError(f"not a repository URL: {_without_secrets(url)}", hint=_URL_FORM)
    options = S3Options(
        endpoint_url=_endpoint(query.get("endpoint") or env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL")),
        region=query.get("region") or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or None,
        path_style=None if addressing is None else addressing == "path",
        access_key=_access_key(env),
    )
    return S3Store(parts.netloc, parts.path, options)


_URL_FORM = "Write s3://BUCKET/PREFIX, with ?endpoint=URL&region=NAME&addressing=path|virtual where they are needed."


def _without_secrets(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//…@", url)


def _endpoint(url: str | None) -> str | None:
    if not url:
        return None
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ConfigError(
            f"not an S3 endpoint: {_without_secrets(url)}",
            hint="Write https://HOST or http://HOST:PORT; credentials go into AWS_ACCESS_KEY_ID and its like.",
        )
    return url


def _access_key(env: Mapping[str, str]) -> AccessKey | None:
    key_id, secret = env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_SECRET_ACCESS_KEY")
    return AccessKey(key_id, secret, env.get("AWS_SESSION_TOKEN") or None) if key_id and secret else None


def _client(bucket: str, options: S3Options) -> Any:
    key = options.access_key
    # A session of our own: the shared default one is not safe to use from several threads.
    session = boto3.session.Session(
        aws_access_key_id=key and key.id,
        aws_secret_access_key=key and key.secret,
        aws_session_token=key and key.session_token,
        region_name=options.region,
    )
    endpoint = options.endpoint_url
    client = session.client(
        "s3", endpoint_url=endpoint, config=_config(bucket, endpoint or "https://amazonaws.com", options)
    )
    found = client.meta.endpoint_url
    if endpoint is None and not _is_at(found, _AWS):
        # A profile names another server, which only the finished client tells.
        client = session.client("s3", config=_config(bucket, found, options))
    return client


def _config(bucket: str, endpoint: str, options: S3Options) -> Config:
    path_style = options.path_style
    if path_style is None:
        path_style = "." in bucket or not _is_at(endpoint, _VIRTUAL_ONLY)
    checksums = None if _is_at(endpoint, _AWS) else "when_required"
    return Config(
        connect_timeout=options.connect_seconds,
        read_timeout=options.read_seconds,
        max_pool_connections=options.connections,
        tcp_keepalive=True,
        retries={"mode": "standard", "total_max_attempts": options.attempts},
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
        s3={"addressing_style": "path" if path_style else "virtual"},
        user_agent_extra="flybackup",
    )


def _is_at(endpoint: str, domains: tuple[str, ...]) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)


def _aware(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise ValueError(f"a time without a zone: {time}")
    return time


def _check_content_range(where: str, response: Mapping[str, Any], offset: int, length: int | None) -> None:
    """Raise `StoreError` unless the server says it sent exactly the range that was asked for (RFC 9110 14.4)."""
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.get("ContentRange", ""))
    if not found:
        raise StoreError(
            f"{where}: the server ignores ranges",
            hint="There is a proxy in between, or it is a server that flybackup cannot use.",
        )
    first, last, size = map(int, found.groups())
    if (first, last) != (offset, size - 1 if length is None else offset + length - 1):
        raise StoreError(f"{where}: asked for {length or 'all'} bytes at {offset}, got {first}-{last} of {size}")


@contextmanager
def _body(data: Buffer) -> Iterator["bytearray | _Body"]:
    """Lend *data* to boto; the caller may resize or reuse it afterwards, whatever boto's errors still refer to."""
    with memoryview(data) as view, view.cast("B") as octets:
        yield _Body(octets) if len(octets) > _SMALL else bytearray(octets)


class _Body(io.RawIOBase):
    """A buffer as a file that boto can read twice (to sign it, to send it) without a copy of the whole."""

    def __init__(self, octets: memoryview) -> None:
        self._octets = octets
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, len(self._octets))[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = len(self._octets) if size < 0 else self._position + size
        part = bytes(self._octets[self._position : end])
        self._position += len(part)
        return part


@contextmanager
def _translated(where: str) -> Iterator[None]:
    try:
        yield
    except ClientError as exc:
        raise refusal(exc, where) from exc
    except (BotoCoreError, HTTPError, ResponseParserError) as exc:
        raise failure(exc, where) from exc
