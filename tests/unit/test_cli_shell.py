import io
import json
import logging
import os
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from flybackup.cli.localtime import LocalZone
from flybackup.cli.progress import LoggedProgress
from flybackup.cli.scratch import remove_abandoned, scratch_directory
from flybackup.errors import ConfigError
from flybackup.logs import JsonLines
from flybackup.model import Progress


def test_scratch_is_private_empty_and_removed(tmp_path: Path) -> None:
    with scratch_directory({"FLYBACKUP_SCRATCH_DIR": str(tmp_path)}) as path:
        assert path.parent == tmp_path
        assert path.stat().st_mode & 0o777 == 0o700
        (path / "something").write_text("x")
        remove_abandoned(tmp_path)
        assert (path / "something").exists()
    assert list(tmp_path.iterdir()) == []


def test_scratch_of_a_dead_process_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in ("flybackup-scratch-123-abcdefgh", "flybackup-scratch-notes", "flybackup-data"):
        (tmp_path / name).mkdir(mode=0o700)
        (tmp_path / name / "file").touch()
    target = tmp_path / "flybackup-data"
    (tmp_path / "flybackup-scratch-124-abcdefgh").symlink_to(target)
    with scratch_directory({"FLYBACKUP_SCRATCH_DIR": str(tmp_path)}):
        left = {path.name for path in tmp_path.iterdir()}
    assert "flybackup-scratch-123-abcdefgh" not in left
    assert {"flybackup-scratch-notes", "flybackup-data"} <= left
    assert (target / "file").exists()


def test_a_scratch_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"), scratch_directory({"FLYBACKUP_SCRATCH_DIR": "/nowhere"}):
        pass


def test_progress_is_logged_now_and_then(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("flybackup"), "propagate", True)
    caplog.set_level(logging.INFO, "flybackup")
    now = 100.0
    progress = LoggedProgress("backup", "cup", lambda: now)
    for second in range(1, 91):
        now = 100.0 + second
        progress(Progress("capture", second * 1000, 90_000))
    assert [record.getMessage() for record in caplog.records] == ["backup.progress"] * 3
    line = json.loads(JsonLines().format(caplog.records[0]))
    assert (line["event"], line["done_bytes"], line["bytes_per_second"]) == ("backup.progress", 30_000, 1000)


def test_log_lines_are_json_whatever_they_hold() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    record = logging.makeLogRecord({"msg": "store.retrying", "error": 'a "quoted"\nline', "where": Path("/x")})
    handler.handle(record)
    assert json.loads(stream.getvalue())["where"] == "/x"
    assert stream.getvalue().count("\n") == 1


def test_local_times_know_summer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TZ", "America/Los_Angeles")
    time.tzset()
    try:
        zone = LocalZone()
        assert datetime(2026, 7, 1, 12, tzinfo=zone).utcoffset() == timedelta(hours=-7)
        assert datetime(2026, 12, 1, 12, tzinfo=zone).utcoffset() == timedelta(hours=-8)
        assert datetime.fromisoformat("2026-07-01T19:00Z").astimezone(zone).hour == 12
    finally:
        monkeypatch.undo()
        time.tzset()
