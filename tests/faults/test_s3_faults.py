"""S3 that refuses, lies, stalls or breaks off: each must end in the right error with a hint, or in success."""

import socket
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from servers.s3 import S3Server
from servers.tiny_s3 import (
    Fault,
    TinyS3,
    answer_with,
    hang_up,
    lose_answer,
    refuse,
    stall,
    stall_within,
    tiny_s3,
    truncate,
)

from flybackup.errors import ObjectExistsError, ObjectNotFoundError, StoreError
from flybackup.stores.conditional import prove_conditional_create
from flybackup.stores.retrying import RetryingStore
from flybackup.stores.s3 import AccessKey, S3Options, S3Store, open_s3

MIB = 1024 * 1024
DATA = b"0123456789" * 10


@pytest.fixture
def server() -> Iterator[TinyS3]:
    with tiny_s3() as server:
        yield server


@pytest.fixture
def store(server: TinyS3) -> S3Store:
    return store_at(server.endpoint)


def store_at(endpoint: str, *, attempts: int = 1) -> S3Store:
    options = S3Options(
        endpoint_url=endpoint,
        region="us-east-1",
        access_key=AccessKey("key-id", "the-secret"),
        connect_seconds=0.5,
        read_seconds=0.3,
        attempts=attempts,
    )
    return S3Store("bucket", "prefix", options)


# A real server that refuses


def test_a_wrong_secret_is_refused_with_a_hint_and_not_shown(s3_server: S3Server) -> None:
    store = open_s3(s3_server.url(), {**s3_server.env(), "AWS_SECRET_ACCESS_KEY": "wrong-secret"})

    with pytest.raises(StoreError, match="SignatureDoesNotMatch") as caught:
        store.put("key", b"data")

    assert "AWS_SECRET_ACCESS_KEY is wrong" in caught.value.hint
    assert "wrong-secret" not in f"{caught.value} {caught.value.hint} {caught.value.__cause__!r}"


def test_an_unknown_access_key_is_refused_with_a_hint(s3_server: S3Server) -> None:
    store = open_s3(s3_server.url(), {**s3_server.env(), "AWS_ACCESS_KEY_ID": "nobody"})

    with pytest.raises(StoreError, match="InvalidAccessKeyId") as caught:
        list(store.list(""))

    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


def test_a_key_that_may_only_read_is_told_which_rights_it_lacks(s3_server: S3Server) -> None:
    url = s3_server.url()
    open_s3(url, s3_server.env()).put("key", b"data")
    reader = {"AWS_ACCESS_KEY_ID": s3_server.reader_access_key, "AWS_SECRET_ACCESS_KEY": s3_server.reader_secret_key}
    store = open_s3(url, {**s3_server.env(), **reader})

    assert store.get("key") == b"data"
    for attempt in (lambda: store.put("key", b"data"), lambda: store.create("new", b""), lambda: store.delete("key")):
        with pytest.raises(StoreError, match="AccessDenied") as caught:
            attempt()
        assert "s3:PutObject" in caught.value.hint


def test_a_missing_bucket_is_not_a_missing_object(s3_server: S3Server) -> None:
    store = open_s3("s3://no-such-bucket/prefix", s3_server.env())

    attempts: list[Callable[[], object]] = [
        lambda: store.put("key", b"data"),
        lambda: store.create("key", b"data"),
        lambda: store.get("key"),
        lambda: list(store.list("")),
    ]
    for attempt in attempts:
        with pytest.raises(StoreError, match="NoSuchBucket") as caught:
            attempt()
        assert not isinstance(caught.value, ObjectNotFoundError)
        assert "Make the bucket" in caught.value.hint


def test_names_that_a_server_lists_out_of_order_are_an_error_not_a_wrong_order(s3_server: S3Server) -> None:
    store = open_s3(s3_server.url(), s3_server.env())
    store.put("a/b", b"")
    store.put("a-b", b"")

    with pytest.raises(StoreError, match="out of order"):
        list(store.list(""))


def test_objects_of_others_are_passed_over(s3_server: S3Server) -> None:
    url = s3_server.url()
    store = open_s3(url, s3_server.env())
    store.put("index/1", b"data")
    bucket, prefix = url.removeprefix("s3://").split("/")
    for name in ("", "index/", "index/README.md", ".hidden"):
        store._client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=b"")

    assert [info.key for info in store.list("")] == ["index/1"]


def test_times_are_those_of_the_server(s3_server: S3Server) -> None:
    store = open_s3(s3_server.url(), s3_server.env())

    assert abs(store.put("key", b"") - datetime.now(UTC)) < timedelta(seconds=5)


def test_an_upload_is_not_copied(s3_server: S3Server) -> None:
    store = open_s3(s3_server.url(), s3_server.env())
    store.put("warm", b"x" * 2 * MIB)
    data = bytearray(32 * MIB)

    tracemalloc.start()
    store.put("large", data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 4 * MIB


# Nobody there


def test_an_unreachable_server_is_a_retryable_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        store = store_at(f"http://127.0.0.1:{unused.getsockname()[1]}")

        with pytest.raises(StoreError, match="Could not connect") as caught:
            store.get("key")

    assert caught.value.retryable
    assert caught.value.exit_code == 20
    assert "Check the endpoint" in caught.value.hint


def test_a_name_that_does_not_exist_is_a_retryable_error() -> None:
    with pytest.raises(StoreError, match="Could not connect") as caught:
        store_at("http://no-such-host.invalid").get("key")

    assert caught.value.retryable


def test_something_that_is_not_tls_is_an_error_of_the_store(server: TinyS3) -> None:
    with pytest.raises(StoreError, match="SSL") as caught:
        store_at(server.endpoint.replace("http:", "https:")).get("key")

    assert "AWS_CA_BUNDLE" in caught.value.hint


def test_no_credentials_are_an_error_with_a_hint(server: TinyS3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")

    with pytest.raises(StoreError, match="credentials") as caught:
        open_s3(f"s3://bucket?endpoint={server.endpoint}", {}).get("key")

    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


# Conditional creation


def test_a_server_that_ignores_conditions_is_refused(server: TinyS3, store: S3Store) -> None:
    server.ignores_conditions = True

    with pytest.raises(StoreError, match="ignores If-None-Match") as caught:
        prove_conditional_create(store)

    assert "conditional writes" in caught.value.hint
    assert server.objects == {}


def test_a_server_that_knows_no_conditions_is_refused(server: TinyS3, store: S3Store) -> None:
    server.faults.append(refuse(501, "NotImplemented"))

    with pytest.raises(StoreError) as caught:
        prove_conditional_create(store)

    assert "conditional creation" in caught.value.hint


def test_a_server_with_conditions_passes_even_if_nothing_may_be_deleted(server: TinyS3, store: S3Store) -> None:
    server.faults.extend([lambda request: request.serve()] * 3)
    server.faults.append(refuse(403, "AccessDenied"))

    prove_conditional_create(store)

    assert server.requests == ["PUT", "PUT", "GET", "DELETE"]


@pytest.mark.parametrize("fault", [lose_answer, refuse(503, "SlowDown")])
def test_boto_repeating_a_creation_whose_answer_was_lost_finds_its_own_object(server: TinyS3, fault: Fault) -> None:
    store = store_at(server.endpoint, attempts=2)
    server.faults.append(fault)

    time = store.create("lock", DATA)

    assert store.get("lock") == DATA
    assert abs(time - datetime.now(UTC)) < timedelta(seconds=5)


def test_boto_repeating_a_creation_does_not_take_anothers_object_for_its_own(server: TinyS3) -> None:
    store = store_at(server.endpoint, attempts=2)
    server.objects["/bucket/prefix/lock"] = b"another's"
    server.faults.append(hang_up)

    with pytest.raises(ObjectExistsError):
        store.create("lock", DATA)


def test_a_creation_that_conflicts_is_retryable_while_nobody_has_won(server: TinyS3, store: S3Store) -> None:
    server.faults.append(refuse(409, "ConditionalRequestConflict"))

    with pytest.raises(StoreError) as caught:
        store.create("lock", DATA)

    assert caught.value.retryable
    assert not isinstance(caught.value, ObjectExistsError)


def test_a_creation_that_conflicts_with_a_winner_finds_the_key_taken(server: TinyS3, store: S3Store) -> None:
    server.objects["/bucket/prefix/lock"] = b"another's"
    server.faults.append(refuse(409, "ConditionalRequestConflict"))

    with pytest.raises(ObjectExistsError):
        store.create("lock", DATA)


def test_a_creation_whose_answer_never_came_is_settled_by_the_retrying_store(server: TinyS3, store: S3Store) -> None:
    server.faults.append(lose_answer)

    RetryingStore(store, first_seconds=0).create("lock", DATA)

    assert server.objects == {"/bucket/prefix/lock": DATA}


# Answers that break off, stall, or are not what was asked for


@pytest.mark.parametrize("keep", [0, 1, 50, 99])
@pytest.mark.parametrize("length", [None, 100])
def test_a_body_that_breaks_off_is_an_error_and_never_a_result(
    server: TinyS3, store: S3Store, keep: int, length: int | None
) -> None:
    store.put("key", DATA)
    server.faults.append(truncate(keep))

    with pytest.raises(StoreError) as caught:
        store.get("key", length=length)

    assert caught.value.retryable


def test_a_body_that_broke_off_is_got_again_by_the_retrying_store(server: TinyS3, store: S3Store) -> None:
    store.put("key", DATA)
    server.faults.extend([truncate(50), truncate(0)])

    assert RetryingStore(store, first_seconds=0).get("key") == DATA


@pytest.mark.parametrize("fault", [stall, stall_within(50)])
def test_a_server_that_stalls_runs_into_the_timeout(server: TinyS3, store: S3Store, fault: Fault) -> None:
    store.put("key", DATA)
    server.faults.append(fault)

    with pytest.raises(StoreError, match=r"(?i)time") as caught:
        store.get("key")

    assert caught.value.retryable
    assert "stopped answering" in caught.value.hint


@pytest.mark.parametrize("fault", [refuse(503, "SlowDown"), refuse(500, "InternalError"), refuse(502), hang_up])
def test_what_passes_is_tried_again_by_boto(server: TinyS3, fault: Fault) -> None:
    store = store_at(server.endpoint, attempts=2)
    for attempt in (lambda: store.put("key", bytes(2 * MIB)), lambda: store.get("key"), lambda: list(store.list(""))):
        server.faults.append(fault)
        attempt()


@pytest.mark.parametrize(
    "fault",
    [
        answer_with(206, {"Content-Range": "bytes 11-20/100"}, DATA[11:21]),
        answer_with(206, {"Content-Range": "bytes 10-18/100"}, DATA[10:19]),
        answer_with(206, {}, DATA[10:20]),
        answer_with(200, {}, DATA),
    ],
)
def test_another_range_than_the_one_asked_for_is_an_error(server: TinyS3, store: S3Store, fault: Fault) -> None:
    server.faults.append(fault)

    with pytest.raises(StoreError):
        store.get("key", offset=10, length=10)


def test_a_listing_that_breaks_off_is_an_error(server: TinyS3, store: S3Store) -> None:
    store.put("key", DATA)
    server.faults.append(lambda request: request.answer(200, {}, request.listing("<IsTruncated>true</IsTruncated>")))

    with pytest.raises(StoreError, match="broke off its listing") as caught:
        list(store.list(""))

    assert caught.value.retryable


def test_a_listing_whose_second_page_fails_is_an_error_after_the_first(server: TinyS3, store: S3Store) -> None:
    store.put("key", DATA)
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>next</NextContinuationToken>"
    server.faults.append(lambda request: request.answer(200, {}, request.listing(more)))
    server.faults.append(refuse(403, "AccessDenied"))
    listing = store.list("")

    assert next(listing).key == "key"
    with pytest.raises(StoreError, match="AccessDenied"):
        next(listing)


@pytest.mark.parametrize("page", [b"<html>Sign in to the hotel's network</html>", b"not even markup"])
def test_a_login_page_instead_of_a_listing_is_an_error(server: TinyS3, store: S3Store, page: bytes) -> None:
    server.faults.append(answer_with(200, {"Content-Type": "text/html"}, page))

    with pytest.raises(StoreError):
        list(store.list(""))


def test_a_login_page_instead_of_a_confirmation_is_an_error(server: TinyS3, store: S3Store) -> None:
    server.faults.append(answer_with(200, {"Content-Type": "text/html"}, b"<html>Sign in</html>"))

    with pytest.raises(StoreError, match="not by S3"):
        store.put("key", DATA)


def test_an_answer_without_a_date_is_an_error(server: TinyS3, store: S3Store) -> None:
    server.faults.append(answer_with(200, {"ETag": '"tag"'}, b"", date=False))

    with pytest.raises(StoreError, match="no date"):
        store.put("key", DATA)


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (403, "RequestTimeTooSkewed", "clock"),
        (400, "ExpiredToken", "AWS_SESSION_TOKEN"),
        (400, "AuthorizationHeaderMalformed", "AWS_REGION"),
        (403, "InvalidObjectState", "archive"),
        (507, "InsufficientStorage", "no room"),
        (416, "InvalidRange", "flybackup check"),
    ],
)
def test_a_refusal_says_what_to_do(server: TinyS3, store: S3Store, status: int, code: str, hint: str) -> None:
    server.faults.append(refuse(status, code))

    with pytest.raises(StoreError, match=code) as caught:
        store.get("key")

    assert hint in caught.value.hint
    assert not caught.value.retryable


def test_deleting_what_a_server_says_is_not_there_is_no_error(server: TinyS3, store: S3Store) -> None:
    server.faults.append(refuse(404, "NoSuchKey"))

    store.delete("key")
