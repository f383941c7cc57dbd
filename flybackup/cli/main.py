"""From arguments to an exit code. The only place that knows what an error looks like to the user."""

import io
import json
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence

import click

from flybackup.cli.group import LazyGroup
from flybackup.cli.options import Options
from flybackup.cli.stopping import StoppedError, stoppable
from flybackup.errors import ConfigError, FlybackupError
from flybackup.escapes import harmless

USAGE = 2
FAILED = 1
SIGNALLED = 128


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code (design: 0 done, 1 failed, 2 usage, 3 partial, 10-30, 128+n)."""
    options = Options()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # a table's name must not fail on a terminal of another locale
    with stoppable():
        try:
            return _invoke(arguments, options)
        except FlybackupError as exc:
            return _fail(options, arguments, str(exc), exc.hint, exc.exit_code)
        except StoppedError as exc:
            if sys.stderr.isatty():
                sys.stderr.write("\n")  # a prompt or ^C stands on this line
            return _fail(options, arguments, f"stopped by {exc}", "", SIGNALLED + exc.signum)
        except Exception as exc:  # noqa: BLE001  the last resort: an error of flybackup itself
            if isinstance(exc, BrokenPipeError) and _reader_left():
                return _end_quietly()
            return _crash(options, arguments, exc)


def _invoke(arguments: Sequence[str], options: Options) -> int:
    """Not `click.Command.main`: that ends the process, without a word, on any broken pipe."""
    program = LazyGroup.program()
    try:
        with program.make_context("flybackup", list(arguments), obj=options) as context:
            result = program.invoke(context)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message(), err=True)
        return USAGE
    except click.UsageError as exc:
        path = exc.ctx.command_path if exc.ctx else "flybackup"
        raise ConfigError(exc.format_message(), hint=f"'{path} --help' tells what there is.") from exc
    except click.ClickException as exc:
        raise ConfigError(exc.format_message()) from exc
    except click.Abort as exc:
        raise ConfigError("nothing was entered") from exc
    return result if isinstance(result, int) else 0


def _fail(options: Options, arguments: Sequence[str], message: str, hint: str, code: int) -> int:
    """Tell on stderr, and with --json on stdout too, so that it holds exactly one document."""
    sys.stderr.write(harmless(f"error: {message}\n" + (f"hint: {hint}\n" if hint else "")))
    if options.json or "--json" in arguments:  # a usage error may come before the option was read
        document = {"error": {"message": message, "hint": hint, "exit_code": code}}
        sys.stdout.write(json.dumps(document) + "\n")
    return code


def _crash(options: Options, arguments: Sequence[str], exc: Exception) -> int:
    if options.verbose:
        traceback.print_exception(exc)
    hint = "" if options.verbose else "This is a fault of flybackup. Run again with -v and report what it prints."
    # Its text may hold anything, a URL with a password as well: only the traceback, which was asked for, shows it.
    return _fail(options, arguments, f"internal error: {type(exc).__name__}", hint, FAILED)


def _reader_left() -> bool:
    """Tell whether whoever read stdout went away (`flybackup show … | head`): no reason to complain."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _end_quietly() -> int:
    # The interpreter flushes what is left at exit, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return SIGNALLED + signal.SIGPIPE
