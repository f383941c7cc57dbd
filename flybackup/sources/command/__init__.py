"""What a user's own programs dump, load and count: for whatever flybackup does not know itself.

Three commands: `dump` writes the data to standard output, `restore` reads them from standard input, `count` prints how
many rows each table has. flybackup knows nothing of what they do, so it believes only their exit codes: one that is not
0 fails the capture or the restore. A dump can also be restored to a file, without any of them (`DumpFile`).
"""

from flybackup.sources.command.dumpfile import DumpFile
from flybackup.sources.command.environment import Environment, without_secrets
from flybackup.sources.command.source import Commands, CommandSource

__all__ = ["CommandSource", "Commands", "DumpFile", "Environment", "without_secrets"]
