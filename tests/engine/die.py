"""python -m engine.die STORE CALL MOMENT: a backup that kills itself with SIGKILL at the n-th store call."""

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

from engine.faulty_store import Fault, FaultyStore
from engine.simple import NEW, PASSPHRASE, back_up
from flybackup import repository as repositories
from flybackup.stores.local import LocalStore


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


if __name__ == "__main__":
    root, call, moment = sys.argv[1:]
    repository = repositories.open_with_passphrase(LocalStore(Path(root)), PASSPHRASE)
    fault = Fault(int(call), "before" if moment == "before" else "after", die)
    back_up(repository.with_store(FaultyStore(repository.store, fault)), NEW)
