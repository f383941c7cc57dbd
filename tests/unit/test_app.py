"""From configuration to stores, sources and repositories: the right ones, and clear words where there are none."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest
from servers.s3 import S3Server

from flybackup import app
from flybackup.config import DuckdbSourceConfig, PostgresSourceConfig, RepositoryConfig
from flybackup.errors import ConfigError, StoreError, WrongKeyError
from flybackup.keys import Argon2Cost
from flybackup.repository import Repository, create
from flybackup.sources.duckdb.source import DuckdbSource
from flybackup.sources.postgres import PostgresSource
from flybackup.sources.sqlite.source import SqliteSource
from flybackup.stores.memory import MemoryStore

CHEAP = Argon2Cost(iterations=1, lanes=1, memory_kib=8)


# Stores


def test_a_directory_by_url_by_path_and_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    place = tmp_path / "my backups"

    for url in (place.as_uri(), str(place), "~/my backups"):
        store = app.open_store(RepositoryConfig(url=url), {})
        store.create(f"probes/{len(url)}", b"data")
        assert store.url == place.as_uri()
    assert len(list(place.glob("probes/*"))) == 3


@pytest.mark.parametrize("url", ["file://host/x", "sftp://host/x", "file:x://y"])
def test_a_url_of_no_store_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        app.open_store(RepositoryConfig(url=url), {})
    assert "file:///" in caught.value.hint


def test_s3_with_metadata_cached_for_each_place_apart(s3_server: S3Server, tmp_path: Path) -> None:
    env = {**s3_server.env(), "FLYBACKUP_CACHE_DIR": str(tmp_path)}
    url = s3_server.url()

    for prefix in ("one", "two"):
        store = app.open_store(RepositoryConfig(url=f"{url}/{prefix}"), env)
        store.put("snapshots/a/1", prefix.encode())
        assert store.get("snapshots/a/1") == prefix.encode()

    assert len(list(tmp_path.glob("*/snapshots/a/1"))) == 2


def test_s3_without_a_home_is_not_cached(s3_server: S3Server) -> None:
    store = app.open_store(RepositoryConfig(url=s3_server.url()), s3_server.env())

    store.put("snapshots/a/1", b"head")

    assert store.get("snapshots/a/1") == b"head"


def test_what_the_file_says_of_s3_comes_before_the_environment(s3_server: S3Server, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{s3_server.secret_key}\n")
    env = {**s3_server.env(), "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1", "AWS_REGION": "elsewhere"}
    del env["AWS_SECRET_ACCESS_KEY"]
    config = RepositoryConfig(url=s3_server.url(), endpoint=s3_server.endpoint, region="us-east-1", addressing="path")

    store = app.open_store(config, {**env, "AWS_SECRET_ACCESS_KEY_FILE": str(tmp_path / "secret")})

    store.create("config", b"data")
    assert store.get("config") == b"data"


def test_an_unreachable_store_is_given_up_after_a_few_tries() -> None:
    class Clock:
        slept = 0

        def now(self) -> datetime:
            return datetime.now(UTC)

        def monotonic(self) -> float:
            return 0

        def sleep(self, seconds: float) -> None:
            self.slept += 1

    clock = Clock()
    keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    store = app.open_store(RepositoryConfig(url="s3://b", endpoint="http://127.0.0.1:1"), keys, clock=clock)

    with pytest.raises(StoreError, match="Could not connect"):
        store.get("config")
    assert clock.slept == 2


# Sources


def test_a_configured_source_becomes_its_source() -> None:
    duck = app.source_for(DuckdbSourceConfig(path=Path("/data/a.duckdb"), verify="checksums"))
    postgres = app.source_for(PostgresSourceConfig(url="postgresql://app@host/shop"))

    assert isinstance(duck, DuckdbSource)
    assert duck.path == Path("/data/a.duckdb")
    assert duck._checksums
    assert isinstance(postgres, PostgresSource)
    assert postgres.address.parameters["dbname"] == "shop"
    assert not postgres._checksums


def test_a_target_is_found_by_the_kind_of_its_snapshot() -> None:
    duck = app.source_at("duckdb", "restored.duckdb")
    postgres = app.source_at("postgres", "postgres://app@host/restored")

    assert isinstance(duck, DuckdbSource)
    assert isinstance(postgres, PostgresSource)
    assert postgres.address.parameters["dbname"] == "restored"


@pytest.mark.parametrize(
    ("kind", "location", "problem"),
    [
        ("duckdb", "postgresql://u:hunter2@host/db", "is a file"),
        ("postgres", "/data/x", "named by a URL"),
        ("sqlite", "postgresql://u:hunter2@host/db", "is a file"),
        ("command", "/data/x", "not in this version yet"),
        ("volume", "s3://bucket/x", "is a directory, not"),
        ("mysql", "/data/x", "no kind of source"),
    ],
)
def test_a_target_that_cannot_be_is_refused(kind: str, location: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        app.source_at(kind, location)
    assert caught.value.hint
    assert "hunter2" not in str(caught.value)


def test_a_duckdb_file_is_recognised_whatever_it_is_called(tmp_path: Path) -> None:
    for name in ("shop.duckdb", "shop", "my shop.db"):
        duckdb.connect(str(tmp_path / name)).close()

    assert app.recognise(str(tmp_path / "shop.duckdb")) == ("duckdb", "shop")
    assert app.recognise(str(tmp_path / "shop")) == ("duckdb", "shop")
    assert app.recognise(str(tmp_path / "my shop.db")) == ("duckdb", "my-shop")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_postgres_url_is_recognised_by_its_scheme(scheme: str) -> None:
    assert app.recognise(f"{scheme}://u:p@host/shop") == ("postgres", "shop")
    assert app.recognise(f"{scheme}://host", {"PGDATABASE": "env"}) == ("postgres", "env")


def test_a_sqlite_file_is_recognised_whatever_it_is_called(tmp_path: Path) -> None:
    for name in ("a.db", "b", "c.duckdb"):
        connection = sqlite3.connect(tmp_path / name)
        connection.execute("CREATE TABLE t (x)")
        connection.close()
        assert app.recognise(str(tmp_path / name)) == ("sqlite", name[0])
    assert isinstance(app.source_at("sqlite", str(tmp_path / "a.db")), SqliteSource)


def test_a_directory_is_a_volume_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    assert app.recognise(str(tmp_path / "data")) == ("volume", "data")
    monkeypatch.chdir(tmp_path / "data")
    assert app.recognise(".") == ("volume", "data")


def test_what_is_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").write_text("")

    for location, problem in (
        (str(tmp_path / "text"), "no database"),
        (str(tmp_path / "empty"), "no database"),
        (str(tmp_path / "absent"), "No such file"),
        ("tournament", "No such file"),
        ("mysql://u:hunter2@host/db", "no kind of source"),
    ):
        with pytest.raises(ConfigError, match=problem) as caught:
            app.recognise(location)
        assert caught.value.hint
        assert "hunter2" not in str(caught.value)


# Repositories


@pytest.fixture
def repository() -> Repository:
    return create(MemoryStore(), "right", label="test", now=datetime(2026, 11, 20, tzinfo=UTC), cost=CHEAP)


def test_a_repository_opens_with_each_kind_of_key_the_strongest_first(repository: Repository) -> None:
    master = repository.require_master("the test")
    write = {"FLYBACKUP_WRITE_KEY": repository.write_key.text()}
    recovery = {"FLYBACKUP_RECOVERY_KEY": master.recovery_text()}
    right = {"FLYBACKUP_PASSPHRASE": "right"}

    for env, reads in (
        (right, True),
        (recovery, True),
        (write, False),
        (write | recovery, True),
        (write | right, True),
    ):
        assert (app.open_repository(repository.store, env).master is not None) == reads
    assert app.open_repository(repository.store, {}, prompt=lambda: "right").master is not None


def test_a_wrong_passphrase_is_not_made_up_for_by_another_key(repository: Repository) -> None:
    env = {"FLYBACKUP_WRITE_KEY": repository.write_key.text(), "FLYBACKUP_PASSPHRASE": "wrong"}

    with pytest.raises(WrongKeyError):
        app.open_repository(repository.store, env)


def test_a_recovery_key_opens_what_a_wrong_passphrase_does_not(repository: Repository) -> None:
    recovery = repository.require_master("the test").recovery_text()

    env = {"FLYBACKUP_PASSPHRASE": "wrong", "FLYBACKUP_RECOVERY_KEY": recovery}

    assert app.open_repository(repository.store, env).master is not None


def test_no_key_at_all_is_an_error_that_says_how_to_give_one(repository: Repository) -> None:
    with pytest.raises(ConfigError, match="no passphrase"):
        app.open_repository(repository.store, {})
