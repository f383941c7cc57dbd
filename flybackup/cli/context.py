"""What a command works with: opened when it is asked for, so that no command needs more than it uses."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import tzinfo
from functools import cached_property, update_wrapper
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar
from zoneinfo import ZoneInfo

import click

from flybackup import app
from flybackup.allocator import keep_freed_memory
from flybackup.cli.localtime import LocalZone
from flybackup.cli.options import Options, options_of
from flybackup.cli.scratch import scratch_directory
from flybackup.cli.targets import absolute
from flybackup.cli.terminal import print_blocks
from flybackup.clock import Clock, SystemClock
from flybackup.config import Config, load_config, passphrase, redact_url
from flybackup.errors import ConfigError
from flybackup.logs import start_logging
from flybackup.report.documents import Document
from flybackup.report.table import Block
from flybackup.repository import Repository
from flybackup.sources import Source
from flybackup.stores import Store

P = ParamSpec("P")
T = TypeVar("T")

_SHORTEST_PASSPHRASE = 8


class Context:
    """The options, the environment, and what they lead to. Every method may raise `ConfigError`."""

    def __init__(self, options: Options, env: Mapping[str, str]) -> None:
        self.options = options
        self.env = env
        self.clock: Clock = SystemClock()
        start_logging(quiet=options.quiet, verbose=options.verbose)

    @cached_property
    def config(self) -> Config:
        return load_config(self.options.config, self.env, repository=self.options.repository)

    @cached_property
    def zone(self) -> tzinfo:
        """The zone in which times are shown and understood."""
        name = self.config.agent.timezone
        return ZoneInfo(name) if name else LocalZone()

    def store(self) -> Store:
        return app.open_store(self.config.repository, self.env, clock=self.clock)

    def repository(self) -> Repository:
        keep_freed_memory()
        return app.open_repository(self.store(), self.env, prompt=_prompt if _can_ask() else None)

    def new_passphrase(self, name: str = "FLYBACKUP_PASSPHRASE") -> str:
        """Return a passphrase to begin to use: from the variable *name*, its `_FILE` twin, or asked for twice."""
        chosen = passphrase(self.env, _prompt_twice if _can_ask() else None, name=name)
        if len(chosen) < _SHORTEST_PASSPHRASE:
            hint = "Everything depends on it, and whoever has the bucket can try guesses: take several words."
            raise ConfigError(f"the passphrase has fewer than {_SHORTEST_PASSPHRASE} characters", hint=hint)
        return chosen

    def configured_source(self, name: str) -> Source:
        return app.source_for(self.config.sources[name], self.env)

    def place(self, kind: str, target: str) -> tuple[str, Source]:
        """Return what a *target* for snapshots of *kind* is called in reports, and itself.

        A target is the name of a configured source, else a path or URL; `./app` is a path, whatever is configured.
        """
        configured = self.config.sources.get(target)
        if configured is None:
            return redact_url(absolute(target)), app.source_at(kind, absolute(target))
        if configured.kind != kind:
            hint = f"Name a source of that kind, a path or URL. The file of that name is ./{target}"
            raise ConfigError(f"{target} is configured as {configured.kind}, the snapshot is of {kind}", hint=hint)
        return target, self.configured_source(target)

    def ad_hoc_source(self, location: str) -> tuple[str, Source]:
        """Return what the source at a path or URL is called, and itself."""
        kind, name = app.recognise(location, self.env)
        return name, app.source_at(kind, location)

    def scratch(self) -> AbstractContextManager[Path]:
        return scratch_directory(self.env)

    def say(self, document: Document, blocks: Iterable[Block]) -> None:
        """Print a result: the one document with --json, else what a person reads."""
        if self.options.json:
            sys.stdout.write(json.dumps(document, default=str) + "\n")
        else:
            print_blocks(blocks)
        sys.stdout.flush()


def with_context(function: Callable[Concatenate[Context, P], T]) -> Callable[P, T]:
    """Give a command its `Context`."""

    def command(*args: P.args, **kwargs: P.kwargs) -> T:
        return function(Context(options_of(click.get_current_context()), os.environ), *args, **kwargs)

    return update_wrapper(command, function)


def _can_ask() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _prompt() -> str:
    return str(click.prompt("Passphrase", hide_input=True, err=True))


def _prompt_twice() -> str:
    return str(click.prompt("New passphrase", hide_input=True, confirmation_prompt="Once more", err=True))
