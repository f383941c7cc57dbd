"""python -m engine.die STORE CALL MOMENT [set]: a backup that kills itself with SIGKILL at the n-th store call."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from engine.faulty_store import Fault, FaultyStore
from engine.simple import NEW, OLD, PASSPHRASE, back_up, back_up_set
from flybackup import repository as repositories
from flybackup.stores.local import LocalStore


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


if __name__ == "__main__":
    root, call, moment, *what = sys.argv[1:]
    repository = repositories.open_with_passphrase(LocalStore(Path(root)), PASSPHRASE)
    fault = Fault(int(call), "before" if moment == "before" else "after", die)
    faulty = repository.with_store(FaultyStore(repository.store, fault))
    if what:
        back_up_set(faulty, (replace(NEW, name="first", fixes_view=True), replace(OLD, name="second")))
    else:
        back_up(faulty, NEW)
