"""The configuration: what a document and an environment mean, every problem said at once, and no secret ever."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from flybackup.config import (
    AgentConfig,
    CommandSourceConfig,
    Config,
    DuckdbSourceConfig,
    PostgresSourceConfig,
    RepositoryConfig,
    Secrets,
    cache_directory,
    database_name,
    load_config,
    parse,
    passphrase,
    read_secrets,
    redact_url,
    redacted,
    source_name,
)
from flybackup.config.table import duration
from flybackup.errors import ConfigError
from flybackup.retention import RetentionPolicy, duration_text

# The document of the design, as it stands there.
DOCUMENT = """
[repository]
url = "s3://${BUCKET_NAME}/prod"          # or a directory: "file:///var/backups/flybackup"

[sources.tournament]
type = "duckdb"                            # duckdb | postgres | sqlite | volume | command
path = "/data/tournament_data.duckdb"
schedule = "every day at 02:00"            # phrase or five-field cron; IANA timezone from [agent]
rpo = "26h"                                # the status turns red when the newest good snapshot is older
verify = "counts"                          # counts | checksums

[sources.tournament.retention]
keep_last = 3
keep_daily = 7
keep_weekly = 4
keep_monthly = 3
keep_tags = { "pre-deploy" = 10 }

[agent]
listen = "127.0.0.1:8807"
timezone = "America/Los_Angeles"
token_file = "/run/secrets/flybackup-token"
"""

HERE = '[repository]\nurl = "file:///backups"\n'


def no_files(path: Path) -> str:
    raise FileNotFoundError(2, "No such file or directory", str(path))


def files(**content: str) -> Callable[[Path], str]:
    return lambda path: content[path.name]


def problems(text: str, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, env or {}, read_file=no_files)
    assert caught.value.hint
    return str(caught.value).splitlines()


def test_the_document_of_the_design_is_read_as_typed_values() -> None:
    assert parse(DOCUMENT, {"BUCKET_NAME": "backups"}, read_file=no_files) == Config(
        repository=RepositoryConfig(url="s3://backups/prod"),
        sources={
            "tournament": DuckdbSourceConfig(
                path=Path("/data/tournament_data.duckdb"),
                schedule="every day at 02:00",
                rpo=timedelta(hours=26),
                verify="counts",
                retention=RetentionPolicy(
                    keep_last=3, keep_daily=7, keep_weekly=4, keep_monthly=3, keep_tags={"pre-deploy": 10}
                ),
            )
        },
        agent=AgentConfig(
            listen="127.0.0.1:8807",
            timezone="America/Los_Angeles",
            token_file=Path("/run/secrets/flybackup-token"),
        ),
    )


@pytest.mark.parametrize(
    "rules",
    ["", "keep_last = 0", "keep_last = 0\nkeep_daily = 0", "keep_tags = { pre-deploy = 10 }", 'keep_last = "${N:-0}"'],
)
def test_a_policy_that_keeps_nothing_is_refused(rules: str) -> None:
    text = f'{HERE}[sources.a]\ntype = "duckdb"\npath = "a"\n[sources.a.retention]\n{rules}'
    (problem,) = problems(text)
    assert problem.startswith("sources.a.retention: has no rule that keeps snapshots without a tag")


@pytest.mark.parametrize(
    "rule", ["keep_within = 14", 'keep_within = "two weeks"', 'keep_within = "0d"', "keep_last = -1"]
)
def test_a_wrong_rule_is_one_problem(rule: str) -> None:
    (problem,) = problems(f'{HERE}[sources.a]\ntype = "duckdb"\npath = "a"\nretention = {{ {rule} }}')
    assert problem.startswith(f"sources.a.retention.{rule.split(maxsplit=1)[0]}: must be")


def test_defaults() -> None:
    config = parse(HERE + '[sources.a]\ntype = "duckdb"\npath = "a.duckdb"', {}, read_file=no_files)

    assert config == Config(
        repository=RepositoryConfig(url="file:///backups"), sources={"a": DuckdbSourceConfig(path=Path("a.duckdb"))}
    )
    assert config.sources["a"].verify == "counts"
    assert config.sources["a"].retention is None
    assert config.agent == AgentConfig(listen="127.0.0.1:8807", timezone=None, token_file=None)


def test_every_problem_is_reported_with_its_dotted_path() -> None:
    text = """
        surprise = 1
        [repository]
        url = "sftp://host/x"
        adressing = "path"
        [sources.a]
        type = "duckdb"
        schedule = ""
        rpo = "26 hours"
        verify = "sometimes"
        shedule = "daily"
        [sources.a.retention]
        keep_last = -1
        keep_daily = true
        keep_weekly = 1.5
        keep_dayly = 7
        keep_tags = { pre-deploy = "ten" }
        [sources.b]
        path = "b.duckdb"
        [sources.c]
        type = "mysql"
        [sources."d e"]
        type = "postgres"
        url = "mysql://user:hunter2@host/db"
        [sources.e]
        type = "postgres"
        url = "hunter2"
        [agent]
        listen = "8807"
        timezone = "Europe/Nowhere"
        token_file = 5
    """

    found = problems(text)

    assert sorted(found) == sorted(
        [
            "surprise: unknown key",
            "repository.url: must begin with s3:// or file://, or be a path, not sftp://",
            "repository.adressing: unknown key; did you mean addressing?",
            "sources.a.path: is missing",
            "sources.a.schedule: must not be empty",
            "sources.a.rpo: must be a duration such as 10m, 26h or 14d, not '26 hours'",
            "sources.a.verify: must be counts or checksums, not 'sometimes'",
            "sources.a.shedule: unknown key; did you mean schedule?",
            "sources.a.retention.keep_last: must be a whole number, 0 or more, not -1",
            "sources.a.retention.keep_daily: must be a whole number, 0 or more, not True",
            "sources.a.retention.keep_weekly: must be a whole number, 0 or more, not 1.5",
            "sources.a.retention.keep_dayly: unknown key; did you mean keep_daily?",
            "sources.a.retention.keep_tags: must be a whole number, 0 or more, not 'ten'",
            "sources.b.type: is missing",
            "sources.c.type: must be duckdb or postgres or sqlite or volume or command, not 'mysql'",
            "sources.d e: a source's name is made of letters, digits, '.', '_' and '-', 64 at most",
            "sources.d e.url: must begin with postgresql:// or postgres://, not mysql://",
            "sources.e.url: must begin with postgresql:// or postgres://",
            "agent.listen: must be HOST:PORT, such as 127.0.0.1:8807 or [::1]:8807, not '8807'",
            "agent.timezone: must be a time zone of the IANA database such as Europe/Berlin, not 'Europe/Nowhere'",
            "agent.token_file: must be a string, not a number",
        ]
    )
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize(
    ("text", "problem"), [("sources = 5", "sources: must be a table"), ("agent = []", "agent: must")]
)
def test_a_value_where_a_table_belongs_is_a_problem(text: str, problem: str) -> None:
    assert problems(f"{text}\n{HERE}")[0].startswith(problem)


def test_what_is_not_toml_is_refused_with_its_place() -> None:
    with pytest.raises(ConfigError, match=r"my\.toml is not TOML: .*line 2"):
        parse("\n[repository\n", {}, name="my.toml")


# The environment in strings


def test_references_are_replaced() -> None:
    text = """
        repository.url = "file:///${A}/${B:-b}/${C:-}$${D}$"
        sources.x.type = "duckdb"
        sources.x.path = "${A}"
        sources.x.retention = { keep_last = "${N:-3}", keep_tags = { t = "${N}" } }
    """
    config = parse(text, {"A": "a", "N": "5"}, read_file=no_files)

    assert config.repository.url == "file:///a/b/${D}$"
    assert config.sources["x"] == DuckdbSourceConfig(
        path=Path("a"), retention=RetentionPolicy(keep_last=5, keep_tags={"t": 5})
    )


@pytest.mark.parametrize(
    ("url", "env", "problem"),
    [
        ("${A}", {}, "the environment variable A is not set"),
        ("${A}", {"A": ""}, "the environment variable A is not set"),
        ("${A", {"A": "a"}, "begins no reference"),
        ("${1}", {}, "begins no reference"),
        ("${A-b}", {}, "begins no reference"),
        ("${A}", {"A": "a", "A_FILE": "/a"}, "both A and A_FILE are set"),
        ("${A}", {"A_FILE": "/a"}, "A_FILE: cannot read /a: No such file or directory"),
    ],
)
def test_a_reference_that_leads_nowhere_is_a_problem(url: str, env: dict[str, str], problem: str) -> None:
    (found,) = problems(f'repository.url = "{url}"', env)

    assert found.startswith("repository.url: ")
    assert problem in found


def test_a_reference_finds_the_file_that_stands_in() -> None:
    text = HERE + '[sources.a]\ntype = "postgres"\nurl = "postgresql://u:${DB_PASSWORD}@host/db"'

    config = parse(text, {"DB_PASSWORD_FILE": "/run/secrets/db"}, read_file=files(db="hunter2\n"))

    assert config.sources["a"] == PostgresSourceConfig(url="postgresql://u:hunter2@host/db")


# The environment alone, as containers have it


def test_fly_s_environment_is_enough() -> None:
    env = {
        "BUCKET_NAME": "app-backups",
        "AWS_ENDPOINT_URL_S3": "https://fly.storage.tigris.dev",
        "DATABASE_URL": "postgres://app:hunter2@app-db.flycast:5432/learning_log?sslmode=disable",
    }

    config = parse("", env, read_file=no_files)

    url = "postgresql://app:hunter2@app-db.flycast:5432/learning_log?sslmode=disable"
    assert config == Config(
        repository=RepositoryConfig(url="s3://app-backups/flybackup"),
        sources={"learning_log": PostgresSourceConfig(url=url)},
    )


def test_a_file_may_stand_in_for_database_url() -> None:
    config = parse(HERE, {"DATABASE_URL_FILE": "/url"}, read_file=files(url="postgresql+asyncpg://host/shop\n"))

    assert config.sources == {"shop": PostgresSourceConfig(url="postgresql://host/shop")}


def test_a_configured_source_comes_before_database_url() -> None:
    text = HERE + '[sources.a]\ntype = "duckdb"\npath = "a"'

    assert list(parse(text, {"DATABASE_URL": "postgres://host/db"}).sources) == ["a"]


def test_a_database_url_of_another_kind_is_no_source() -> None:
    assert parse(HERE, {"DATABASE_URL": "sqlite:///learninglog.db"}).sources == {}


@pytest.mark.parametrize(
    ("given", "variable", "written", "wins"),
    [
        ("s3://given", "s3://variable", "s3://written", "s3://given"),
        (None, "s3://variable", "s3://written", "s3://variable"),
        (None, None, "s3://written", "s3://written"),
        (None, None, None, "s3://fly/flybackup"),
        ("/srv/backups", None, "s3://${UNSET}", "/srv/backups"),
    ],
)
def test_the_command_line_comes_before_the_environment_before_the_file(
    given: str | None, variable: str | None, written: str | None, wins: str
) -> None:
    env = {"BUCKET_NAME": "fly"} | ({"FLYBACKUP_REPOSITORY": variable} if variable else {})
    text = f'repository.url = "{written}"' if written else ""

    assert parse(text, env, repository=given).repository.url == wins


def test_no_repository_at_all_says_where_one_may_be_given() -> None:
    (found,) = problems("")

    for word in ("[repository]", "FLYBACKUP_REPOSITORY", "BUCKET_NAME", "-r URL"):
        assert word in found


@pytest.mark.parametrize("url", ["ftp://host", "file://host/x", "s3://key:hunter2@bucket/x"])
def test_a_repository_url_from_outside_is_checked_too(url: str) -> None:
    (found,) = problems("", {"FLYBACKUP_REPOSITORY": url})

    assert found.startswith("-r or FLYBACKUP_REPOSITORY: must")
    assert "hunter2" not in found


def test_what_s3_needs_may_be_written() -> None:
    text = '[repository]\nurl = "s3://b"\nendpoint = "http://minio:9000"\nregion = "eu"\naddressing = "path"'

    assert parse(text, {}).repository == RepositoryConfig(
        url="s3://b", endpoint="http://minio:9000", region="eu", addressing="path"
    )


def test_a_database_url_may_lie_in_a_file_but_not_in_two_places() -> None:
    text = HERE + '[sources.a]\ntype = "postgres"\nurl_file = "/run/db"'

    config = parse(text, {}, read_file=files(db="postgres://u:hunter2@host/db\n"))

    assert config.sources["a"] == PostgresSourceConfig(url="postgresql://u:hunter2@host/db")
    assert problems(text) == ["sources.a.url_file: cannot read /run/db: No such file or directory"]
    assert any("url_file: stands beside url" in each for each in problems(text + '\nurl = "postgres://h/d"'))


# Durations


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("30s", 30), ("10m", 600), ("26h", 93_600), ("14d", 1_209_600), ("2w", 1_209_600), ("1d12h", 129_600)],
)
def test_durations(written: str, seconds: int) -> None:
    assert duration(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize("written", ["", " ", "26", "h", "26 h", "26H", "-1h", "1.5h", "0s", "1y", "26h ", 26, None])
def test_what_is_no_duration(written: object) -> None:
    with pytest.raises(ValueError, match="must"):
        duration(written)


@given(st.integers(1, 10**9))
def test_a_duration_is_shown_as_it_could_be_written(seconds: int) -> None:
    assert duration(duration_text(timedelta(seconds=seconds))) == timedelta(seconds=seconds)


# Finding the file


def test_a_named_file_comes_before_the_environment_s_before_the_one_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env = {"FLYBACKUP_CONFIG": str(tmp_path / "env.toml"), "BUCKET_NAME": "fly"}
    assert load_config(None, {"BUCKET_NAME": "fly"}).repository.url == "s3://fly/flybackup"
    for name in ("flybackup", "env", "named"):
        (tmp_path / f"{name}.toml").write_text(f'repository.url = "s3://{name}"')

    assert load_config(None, {}).repository.url == "s3://flybackup"
    assert load_config(None, env).repository.url == "s3://env"
    assert load_config(tmp_path / "named.toml", env).repository.url == "s3://named"


def test_a_named_file_must_be_there_and_be_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.toml: No such file") as caught:
        load_config(tmp_path / "absent.toml", {"BUCKET_NAME": "b"})
    assert "FLYBACKUP_CONFIG" in caught.value.hint

    (tmp_path / "latin.toml").write_bytes(b"# \xe4\n")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "latin.toml", {})
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(tmp_path, {})


# Showing it


def test_what_is_shown_holds_no_secret_and_the_rest() -> None:
    text = """
        [repository]
        url = "s3://bucket/prod?endpoint=https://user:hunter2@host"
        [sources.a]
        type = "postgres"
        url = "postgresql://app:hunter2@host:5432/db?sslpassword=hunter2&sslmode=require"
        rpo = "1d2h"
        [sources.b]
        type = "duckdb"
        path = "/data/b.duckdb"
        retention = { keep_last = 0, keep_within = "336h", keep_tags = { x = 1 } }
    """
    config = parse(text, {})

    assert redacted(config) == {
        "repository": {"url": "s3://bucket/prod?endpoint=https://user:***@host"},
        "sources": {
            "a": {
                "type": "postgres",
                "url": "postgresql://app:***@host:5432/db?sslpassword=***&sslmode=require",
                "rpo": "26h",
                "verify": "counts",
            },
            "b": {
                "type": "duckdb",
                "path": "/data/b.duckdb",
                "verify": "counts",
                "retention": {"keep_last": 0, "keep_within": "2w", "keep_tags": {"x": 1}},
            },
        },
        "agent": {"listen": "127.0.0.1:8807"},
    }
    assert "hunter2" not in repr(config.sources)


COMMAND = """
    [sources.a]
    type = "command"
    dump = ["mysqldump", "-phunter2", ""]
    count = ["rows"]
    env = { MYSQL_PWD = "${DB}", EMPTY = "" }
    timeout = "10m"
"""


def test_the_commands_of_a_source() -> None:
    config = parse(HERE + COMMAND, {"DB_FILE": "/db"}, read_file=files(db="hunter2\n"))

    assert config.sources["a"] == CommandSourceConfig(
        dump=("mysqldump", "-phunter2", ""),
        count=("rows",),
        env={"MYSQL_PWD": "hunter2", "EMPTY": ""},
        timeout=timedelta(minutes=10),
    )
    assert redacted(config)["sources"]["a"] == {
        "type": "command",
        "verify": "counts",
        "dump": "mysqldump and 2 arguments",
        "count": "rows and 0 arguments",
        "env": ["EMPTY", "MYSQL_PWD"],
        "timeout": "10m",
    }
    assert "hunter2" not in repr(config.sources)


def test_a_shell_only_when_it_is_asked_for() -> None:
    text = HERE + '[sources.a]\ntype = "command"\nshell = true\ndump = "mysqldump $DB"'
    assert parse(text, {}).sources["a"] == CommandSourceConfig(dump=("/bin/sh", "-c", "mysqldump $DB"))
    assert problems(text.replace("true", "false")) == [
        'sources.a.dump: must be an array of strings, such as ["mysqldump", "app"], or a string with shell = true'
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('dump = ["x", "a\\u0000b"]', "dump: must not hold the character NUL, which no program can get"),
        ("dump = []", 'dump: must be an array of strings, such as ["mysqldump", "app"], or a string with shell = true'),
        ('dump = ["x"]\nenv = ["A=b"]', 'env: must be a table of strings, such as { MYSQL_PWD = "${DB_PASSWORD}" }'),
        ('dump = ["x"]\nenv = { "A=b" = "c" }', "env: 'A=b' cannot be the name of a variable"),
        (
            'dump = ["x"]\nenv = { A = "\\u0000" }',
            "env: must not hold the character NUL, which no program can get",
        ),
        ('dump = ["x"]\nverify = "checksums"', "verify: checksums are for databases; what a command counts are rows"),
        ('restore = ["x"]', "dump: is missing"),
    ],
)
def test_commands_that_cannot_be(line: str, problem: str) -> None:
    assert problems(f'{HERE}[sources.a]\ntype = "command"\n{line}') == [f"sources.a.{problem}"]


@pytest.mark.parametrize(
    "password", ["hunter2", "hun@ter2", "hun/ter2", "hun:ter2", "hun?ter2", "hun#ter2", "a@hunter2@b", "@hunter2"]
)
def test_a_password_is_hidden_whatever_characters_its_owner_forgot_to_encode(password: str) -> None:
    shown = redact_url(f"postgresql://user:{password}@host/db")

    assert shown == "postgresql://user:***@host/db"


@pytest.mark.parametrize(
    "url", ["postgresql://host/db", "postgresql://user@host/db", "/var/backups", "file:///a@b", ""]
)
def test_a_url_without_secrets_is_shown_as_it_is(url: str) -> None:
    assert redact_url(url) == url


# Names


@pytest.mark.parametrize(
    ("url", "env", "name"),
    [
        ("postgresql://host/db", {}, "db"),
        ("postgresql://host/my%20db", {}, "my db"),
        ("postgresql://u@host", {}, "u"),
        ("postgresql://u@host/", {"PGDATABASE": "env"}, "env"),
        ("postgresql://host", {"PGUSER": "env-user"}, "env-user"),
        ("postgresql://", {}, "postgres"),
        ("postgresql://[", {}, "postgres"),
    ],
)
def test_a_database_s_name_is_the_one_that_libpq_would_take(url: str, env: dict[str, str], name: str) -> None:
    assert database_name(url, env) == name


@pytest.mark.parametrize(("text", "name"), [("db", "db"), ("my db!", "my-db"), ("a@b:c", "a-b-c"), ("..", "source")])
def test_any_text_makes_a_name_of_a_source(text: str, name: str) -> None:
    assert source_name(text) == name


# Secrets


def test_secrets_come_from_the_environment_or_files_and_are_not_shown() -> None:
    env = {
        "FLYBACKUP_PASSPHRASE_FILE": "/run/secrets/passphrase",
        "FLYBACKUP_WRITE_KEY": "hunter2-write",
        "FLYBACKUP_RECOVERY_KEY": "",
    }

    secrets = read_secrets(env, files(passphrase="hunter2 with spaces \r\n"))

    assert secrets == Secrets(passphrase="hunter2 with spaces ", write_key="hunter2-write")
    assert repr(secrets) == str(secrets) == f"{secrets}" == "Secrets(passphrase, write_key)"
    assert repr(Secrets()) == "Secrets(none)"


def test_a_secret_in_two_places_is_refused() -> None:
    with pytest.raises(ConfigError, match="both FLYBACKUP_WRITE_KEY and FLYBACKUP_WRITE_KEY_FILE") as caught:
        read_secrets({"FLYBACKUP_WRITE_KEY": "hunter2", "FLYBACKUP_WRITE_KEY_FILE": "/x"}, files(x="hunter2"))

    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


def test_a_secret_s_file_that_is_not_text_is_refused_without_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"hunter2\xff")

    with pytest.raises(ConfigError, match="is not text") as caught:
        read_secrets({"FLYBACKUP_WRITE_KEY_FILE": str(tmp_path / "key")})

    error: BaseException | None = caught.value
    while error:
        assert "hunter2" not in repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_the_passphrase_is_asked_for_only_where_the_environment_has_none() -> None:
    assert passphrase({"FLYBACKUP_PASSPHRASE": "env"}, lambda: "asked") == "env"
    assert passphrase({"FLYBACKUP_PASSPHRASE_FILE": "/p"}, lambda: "asked", read_file=files(p="file\n")) == "file"
    assert passphrase({"FLYBACKUP_PASSPHRASE": ""}, lambda: "asked") == "asked"
    assert passphrase({"FLYBACKUP_NEW_PASSPHRASE": "new"}, name="FLYBACKUP_NEW_PASSPHRASE") == "new"


@pytest.mark.parametrize("prompt", [None, lambda: ""])
def test_no_passphrase_is_an_error_that_says_how_to_give_one(prompt: Callable[[], str] | None) -> None:
    with pytest.raises(ConfigError, match="no passphrase") as caught:
        passphrase({}, prompt)

    assert "FLYBACKUP_PASSPHRASE_FILE" in caught.value.hint


@pytest.mark.parametrize(
    ("env", "directory"),
    [
        ({"FLYBACKUP_CACHE_DIR": "/c", "HOME": "/h"}, Path("/c")),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, Path("/x/flybackup")),
        ({"HOME": "/h"}, Path("/h/.cache/flybackup")),
        ({"HOME": "relative"}, None),
        ({}, None),
    ],
)
def test_where_caches_go(env: dict[str, str], directory: Path | None) -> None:
    assert cache_directory(env) == directory
