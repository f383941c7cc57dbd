"""Servers that tests share: real ones, started once a session on free ports. No property is judged by the clock."""

from hypothesis import settings

pytest_plugins = ["servers.postgres", "servers.s3"]

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
