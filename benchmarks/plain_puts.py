"""What S3 gives at best: a file put as plain objects of 16 MiB by two threads, nothing else done to the bytes."""

import os
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
from botocore.config import Config

OBJECT_BYTES = 16 * 1024 * 1024

bucket, file = sys.argv[1], Path(sys.argv[2])
config = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required")
client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"], config=config)
prefix = secrets.token_hex(8)


def put(offset: int) -> None:
    with file.open("rb") as source:
        source.seek(offset)
        client.put_object(Bucket=bucket, Key=f"{prefix}/{offset}", Body=source.read(OBJECT_BYTES))


with ThreadPoolExecutor(2) as pool:
    list(pool.map(put, range(0, file.stat().st_size, OBJECT_BYTES)))
