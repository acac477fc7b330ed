"""What a job of the stock plugin leaves in S3, without the seconds of computing that its ``exec.py`` needs for that.

``python stock_job.py RESULT [SECONDS]`` is the image's command where only the server is measured: a hundred jobs that
each import Covalent would take the processors away from it. Needs nothing but Python.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import random
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit


def main(result: Path, at_most_s: float = 0.0) -> None:
    """Sleep a random time, then put the given file as the electron's result, and what it printed: nothing."""
    time.sleep(random.uniform(0, at_most_s))
    bucket, name = os.environ["S3_BUCKET_NAME"], os.environ["RESULT_FILENAME"]
    printed = json.dumps(["", "", None, None]).encode()
    with urllib.request.urlopen(os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"], timeout=60) as answer:
        credentials = json.load(answer)
    host = urlsplit(os.environ["AWS_ENDPOINT_URL"]).netloc
    connection = http.client.HTTPConnection(host)
    for key, body in (
        (name.rsplit(".", maxsplit=1)[0].replace("result", "io_output") + ".json", printed),
        (name, result.read_bytes()),
    ):
        connection.request("PUT", f"/{bucket}/{key}", body, signed(credentials, host, f"/{bucket}/{key}"))
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            sys.exit(f"s3://{bucket}/{key}: HTTP {answer.status}")


def signed(credentials: dict[str, str], host: str, path: str) -> dict[str, str]:
    """The headers of a PUT, signed with AWS Signature Version 4 (IAM User Guide)."""
    at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    scope = f"{at[:8]}/{os.environ['AWS_REGION']}/s3/aws4_request"
    signed = {
        "host": host,
        "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
        "x-amz-date": at,
        "x-amz-security-token": credentials["Token"],
    }
    names, lines = ";".join(signed), "".join(f"{name}:{value}\n" for name, value in signed.items())
    canonical = f"PUT\n{path}\n\n{lines}\n{names}\nUNSIGNED-PAYLOAD"
    to_sign = f"AWS4-HMAC-SHA256\n{at}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{credentials['SecretAccessKey']}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={credentials['AccessKeyId']}/{scope}, SignedHeaders={names}, "
        f"Signature={hmac.digest(key, to_sign.encode(), 'sha256').hex()}"
    )
    return {**signed, "authorization": authorization, "content-type": "application/octet-stream"}


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
