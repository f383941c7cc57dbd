"""URLs of databases and repositories: what they name, and how they are shown without their secrets."""

import re
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote, urlsplit

_POSTGRES = re.compile(r"postgres(?:ql)?(?:\+[a-z0-9]+)?://", re.IGNORECASE)
# Up to the last @, because people forget to encode the characters of passwords; rather too much is hidden.
_USERINFO = re.compile(r"(?<=://)([^/?#@:]*):.*@")
_SECRET_PARAMETER = re.compile(r"(?i)([?&][^=&#]*(?:password|secret|token|key)[^=&#]*=)[^&#]*")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")


def is_postgres_url(text: str) -> bool:
    """Tell by the scheme, also with the driver that SQLAlchemy writes there (`postgresql+psycopg://`)."""
    return _POSTGRES.match(text) is not None


def postgres_url(text: str) -> str:
    """Return a PostgreSQL URL as libpq reads it: without a driver in its scheme."""
    return _POSTGRES.sub("postgresql://", text, count=1)


def database_name(url: str, env: Mapping[str, str]) -> str:
    """Return the database that libpq would connect to."""
    parts = _split(url)
    named = unquote(parts.path.lstrip("/")) if parts else ""
    user = unquote(parts.username or "") if parts else ""
    return named or env.get("PGDATABASE") or user or env.get("PGUSER") or "postgres"


def source_name(text: str) -> str:
    """Return *text* as the name of a source, which is part of commands and of `SOURCE@TIME`."""
    return _NOT_IN_A_NAME.sub("-", text).strip("-.") or "source"


def redact_url(url: str) -> str:
    """Return *url* with the password, and parameters that look like secrets, replaced by asterisks."""
    return _SECRET_PARAMETER.sub(r"\1***", _USERINFO.sub(r"\1:***@", url))


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None
