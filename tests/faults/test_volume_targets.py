"""How a tree comes to its target: beside it or inside a mount point, and after a kill at any step."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from trees import pictured

from flybackup.clock import SystemClock
from flybackup.errors import RefusedError
from flybackup.sources import RestoreOptions
from flybackup.sources.volume import placing
from flybackup.sources.volume.placing import Target

NOW = SystemClock().now()


class KilledError(Exception):
    pass


def fill(directory: Path, text: str) -> None:
    (directory / "data").mkdir(parents=True)
    for name in ("one", "data/two"):
        (directory / name).write_text(text)
    (directory / f"only {text}").write_text(text)


def contents(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): path.read_text()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.relative_to(directory).parts[0].startswith(".flybackup-restore")
    }


@pytest.fixture(params=["inside", "beside"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    path = tmp_path / "volume"
    path.mkdir()
    return Target(path, inside=request.param == "inside")


def restored(target: Target, text: str = "new", *, replace: bool) -> tuple[str, ...]:
    with placing.staged(target) as (tree, _):
        fill(tree, text)
        tree.chmod(0o751)
        return placing.publish(tree, target, NOW, replace=replace)


def test_a_tree_fills_an_empty_directory(target: Target) -> None:
    (target.path / "lost+found").mkdir()
    if not target.inside:
        (target.path / "lost+found").rmdir()
    assert restored(target, replace=False) == ()
    assert contents(target.path)["one"] == "new"
    assert target.path.stat().st_mode & 0o777 == 0o751
    assert [path.name for path in target.path.parent.iterdir()] == ["volume"]


def test_what_is_replaced_is_kept_and_the_command_that_undoes_it_works(target: Target) -> None:
    fill(target.path, "old")
    before = pictured(target.path / "data")
    _, undo = restored(target, replace=True)
    assert set(contents(target.path).values()) == {"new"}
    subprocess.run(["/bin/sh", "-c", undo.split(": ", 1)[1]], check=True)
    assert set(contents(target.path).values()) == {"old"}
    assert pictured(target.path / "data") == before


def test_a_full_directory_is_refused_without_replace(target: Target) -> None:
    fill(target.path, "old")
    with pytest.raises(RefusedError, match="not empty"):
        placing.refuse_taken(target, RestoreOptions())
    with pytest.raises(RefusedError, match="filled meanwhile"):
        restored(target, replace=False)
    with pytest.raises(RefusedError, match="a part of it"):
        placing.refuse_taken(target, RestoreOptions(replace=True, only=["one"]))
    assert set(contents(target.path).values()) == {"old"}


@contextlib.contextmanager
def killed_after(renames: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    left = iter(range(renames))
    rename = Path.rename

    def counted(self: Path, target: Path) -> Path:
        if next(left, None) is None:
            raise KilledError
        return rename(self, target)

    with monkeypatch.context() as patch, contextlib.suppress(KilledError):
        patch.setattr(Path, "rename", counted)
        # What a process does on its way out, a killed one does not do.
        patch.setattr(placing, "remove_tree", lambda _: None)
        yield


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("renames", range(10))
def test_after_a_kill_at_any_step_running_it_again_finishes(
    *, renames: int, full: bool, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    if full:
        fill(target.path, "old")
    with killed_after(renames, monkeypatch):
        restored(target, replace=True)
    everything = "".join(path.read_text() for path in target.path.parent.rglob("*") if path.is_file())
    assert not full or everything.count("old") == 3  # nothing was lost, wherever it lies
    placing.recover(target)
    seen = set(contents(target.path).values()) if target.path.exists() else set()
    assert seen <= ({"old"} if full else set()) or seen == {"new"}
    if target.path.exists():
        restored(target, "again", replace=True)
    else:
        restored(Target(target.path, inside=False), "again", replace=True)
    assert set(contents(target.path).values()) == {"again"}
    rest = [path.name for path in (*target.path.iterdir(), *target.path.parent.iterdir())]
    assert not [name for name in rest if any(state in name for state in ("staged", "restoring", "clearing", "filling"))]


def test_a_restore_that_runs_is_not_cleared_away(target: Target) -> None:
    with placing.staged(target) as (tree, _):
        fill(tree, "new")
        with placing.staged(target) as (other, _):
            assert other != tree
        assert set(contents(tree).values()) == {"new"}


def test_a_link_is_no_target(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").write_text("x")
    with pytest.raises(RefusedError, match="symbolic link"):
        placing.target_at(tmp_path / "link")
    with pytest.raises(RefusedError, match="no directory"):
        placing.target_at(tmp_path / "file")
