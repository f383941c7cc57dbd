"""Which server, bucket and way of addressing a URL and an environment mean; no request is made."""

import pytest

from flybackup.errors import ConfigError, StoreError
from flybackup.stores.s3 import AccessKey, S3Options, S3Store, open_s3

KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "the-secret"}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")


def where(store: S3Store) -> str:
    """Return the URL that a request for a key would go to."""
    url: str = store._client.generate_presigned_url("get_object", store._object("key"))
    return url.partition("?")[0]


@pytest.mark.parametrize(
    ("url", "env", "goes_to"),
    [
        ("s3://bucket/prod", {"AWS_REGION": "eu-central-1"}, "https://bucket.s3.eu-central-1.amazonaws.com/prod/key"),
        ("s3://bucket", {}, "https://bucket.s3.amazonaws.com/key"),
        ("s3://bucket?region=us-west-2", {"AWS_REGION": "eu-west-1"}, "https://bucket.s3.us-west-2.amazonaws.com/key"),
        ("s3://dotted.bucket", {"AWS_REGION": "eu-west-1"}, "https://s3.eu-west-1.amazonaws.com/dotted.bucket/key"),
        # What Fly sets for a Tigris bucket.
        (
            "s3://bucket/prod",
            {"AWS_ENDPOINT_URL_S3": "https://fly.storage.tigris.dev", "AWS_REGION": "auto"},
            "https://bucket.fly.storage.tigris.dev/prod/key",
        ),
        ("s3://bucket/a/b/", {"AWS_ENDPOINT_URL": "http://localhost:9000"}, "http://localhost:9000/bucket/a/b/key"),
        ("s3://bucket?endpoint=https://s3.example.org", {}, "https://s3.example.org/bucket/key"),
        (
            "s3://bucket?endpoint=https://s3.example.org&addressing=virtual",
            {"AWS_ENDPOINT_URL_S3": "http://other"},
            "https://bucket.s3.example.org/key",
        ),
        (
            "s3://bucket?endpoint=https://t3.storage.dev&addressing=path",
            {},
            "https://t3.storage.dev/bucket/key",
        ),
    ],
)
def test_requests_go_to(url: str, env: dict[str, str], goes_to: str) -> None:
    assert where(open_s3(url, {**KEYS, **env})) == goes_to


def test_an_endpoint_from_a_profile_is_found_and_spoken_to_as_one_that_is_not_aws(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = tmp_path_factory.mktemp("aws") / "config"
    config.write_text("[default]\nendpoint_url = http://minio:9000\nregion = us-east-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))

    store = open_s3("s3://bucket", KEYS)

    assert where(store) == "http://minio:9000/bucket/key"
    assert store._client.meta.config.request_checksum_calculation == "when_required"


@pytest.mark.parametrize(
    ("endpoint", "checksums"),
    [
        (None, "when_supported"),
        ("https://s3.eu-west-1.amazonaws.com", "when_supported"),
        ("https://s3.cn-north-1.amazonaws.com.cn", "when_supported"),
        ("https://amazonaws.com.example.org", "when_required"),
        ("https://notamazonaws.com", "when_required"),
        ("https://fly.storage.tigris.dev", "when_required"),
    ],
)
def test_checksum_headers_are_for_aws_only(endpoint: str | None, checksums: str) -> None:
    key = AccessKey("id", "secret")
    store = S3Store("bucket", "", S3Options(endpoint_url=endpoint, region="us-east-1", access_key=key))

    assert store._client.meta.config.request_checksum_calculation == checksums
    assert store._client.meta.config.response_checksum_validation == checksums


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///prefix",
        "https://bucket/prefix",
        "s3://bucket?regoin=eu",
        "s3://bucket?addressing=sideways",
        "s3://bucket?endpoint=s3.example.org",
        "s3://bucket?endpoint=ftp://s3.example.org",
        "s3://bucket?endpoint=https://user:hunter2@s3.example.org",
    ],
)
def test_what_cannot_be_is_refused_without_showing_secrets(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_s3(url, KEYS)

    assert caught.value.hint
    assert "hunter2" not in str(caught.value)


def test_a_bucket_name_that_cannot_be_is_an_error_of_the_store() -> None:
    store = open_s3("s3://bucket%20name?endpoint=http://127.0.0.1:1", KEYS)

    with pytest.raises(StoreError, match="Invalid bucket name") as caught:
        store.get("key")

    assert "bucket's name" in caught.value.hint


def test_an_access_key_does_not_show_its_secret() -> None:
    assert "the-secret" not in repr(AccessKey("id", "the-secret", "token"))
    assert "token" not in repr(S3Options(access_key=AccessKey("id", "the-secret", "tok" + "en")))
