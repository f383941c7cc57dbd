"""What went wrong with S3, in words: one table of the server's refusals, one of boto's failures to reach it."""

from botocore import exceptions as boto
from botocore.exceptions import ClientError

from flybackup.errors import ObjectNotFoundError, StoreError

_REGION = "The bucket is in another region: set AWS_REGION, or region=… in the repository's URL."
_DENIED = "Allow these credentials s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket there."
_SIGNATURE = "AWS_SECRET_ACCESS_KEY is wrong (a space or newline at its end counts), or a proxy changes requests."
_EXPIRED = "The temporary credentials are over: renew AWS_SESSION_TOKEN, or use a role or a key that lasts."
_FULL = "The server has no room left, or the bucket's quota is used up."
_UNKNOWN_KEY = "AWS_ACCESS_KEY_ID is not known there: is it the right key for this endpoint?"
_CONDITIONAL = "A repository needs a server with conditional creation (If-None-Match: *)."
_FREEZER = (
    "A lifecycle rule moved it to an archive class: restore it there first, and exempt this prefix from the rule."
)

_HINTS = {
    "NoSuchBucket": "Make the bucket, or correct the repository's URL.",
    "InvalidBucketName": "Correct the bucket's name in the repository's URL.",
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "Forbidden": _DENIED,
    "403": _DENIED,
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "SignatureDoesNotMatch": _SIGNATURE,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "RequestTimeTooSkewed": "This machine's clock is wrong: synchronise it (NTP).",
    "PermanentRedirect": _REGION,
    "TemporaryRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "301": _REGION,
    "307": _REGION,
    "InvalidObjectState": _FREEZER,
    "NotImplemented": _CONDITIONAL,
    "501": _CONDITIONAL,
    "QuotaExceeded": _FULL,
    "InsufficientStorage": _FULL,
    "XMinioStorageFull": _FULL,
    "507": _FULL,
    "InvalidRange": "The object is shorter than it should be: run `flybackup check`.",
    "416": "The object is shorter than it should be: run `flybackup check`.",
}

_PASSING_CODES = {
    "BadDigest",  # damaged on the way
    "ConditionalRequestConflict",
    "IncompleteBody",
    "OperationAborted",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "XAmzContentSHA256Mismatch",
}

_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}

_CREDENTIALS = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role."

_FAILURES: tuple[tuple[type[boto.BotoCoreError], str, bool], ...] = (
    (boto.NoCredentialsError, _CREDENTIALS, False),
    (boto.PartialCredentialsError, _CREDENTIALS, False),
    (boto.CredentialRetrievalError, _CREDENTIALS, False),
    (boto.ProfileNotFound, "AWS_PROFILE names a profile that is not in the AWS configuration.", False),
    (
        boto.SSLError,
        "The server's certificate is not trusted: AWS_CA_BUNDLE names a file of further authorities.",
        False,
    ),
    (boto.ProxyConnectionError, "Check HTTPS_PROXY and NO_PROXY.", True),
    (boto.EndpointConnectionError, "Check the endpoint, the network and the name's DNS entry.", True),
    (boto.ConnectTimeoutError, "Nobody answers: check the endpoint and the firewall.", True),
    (boto.ReadTimeoutError, "The server stopped answering.", True),
    (boto.HTTPClientError, "The connection broke.", True),
    (boto.IncompleteReadError, "The answer broke off.", True),
    (boto.FlexibleChecksumError, "The answer does not match its checksum: damaged on the way or in the store.", True),
    (boto.ParamValidationError, "Correct the bucket's name in the repository's URL.", False),
)


def code_of(exc: ClientError) -> str:
    """Return the server's word for it, or the HTTP status where it has none."""
    return str(exc.response.get("Error", {}).get("Code", ""))


def status_of(exc: ClientError) -> int:
    return int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def refusal(exc: ClientError, where: str) -> StoreError:
    """Translate an answer that says no. *where* is the URL of the object, bucket or listing."""
    code = code_of(exc)
    status = status_of(exc)
    if code in {"NoSuchKey", "404"} or (status == 404 and code != "NoSuchBucket"):  # noqa: PLR2004
        return ObjectNotFoundError(f"no object {where}")
    said = exc.response.get("Error", {}).get("Message", "")
    retryable = code in _PASSING_CODES or status in _PASSING_STATUS
    return StoreError(
        f"{where}: the server refused: {code} {said}".rstrip(), hint=_HINTS.get(code, ""), retryable=retryable
    )


def failure(exc: Exception, where: str) -> StoreError:
    """Translate the lack of an answer, or one that is not S3's."""
    for kind, hint, retryable in _FAILURES:
        if isinstance(exc, kind):
            return StoreError(f"{where}: {exc}", hint=hint, retryable=retryable)
    if isinstance(exc, boto.BotoCoreError):
        return StoreError(f"{where}: {exc}")
    return StoreError(f"{where}: {exc}", hint="The connection broke, or what answers there is not S3.", retryable=True)
