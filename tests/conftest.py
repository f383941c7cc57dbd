"""Servers that tests share: real ones, started once a session on free ports."""

pytest_plugins = ["servers.postgres", "servers.s3"]
