"""What a job of the stock plugin leaves in S3, without the seconds of computing that its ``exec.py`` needs for that.

``python stock_job.py RESULT [SECONDS]`` is the image's command where only the server is measured: a hundred jobs that
each import Covalent would take the processors away from it. Needs nothing but Python.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit


def main(result: Path, at_most_s: float = 0.0) -> None:
    """Sleep a random time, then put the given file as the electron's result, and what it printed: nothing."""
    time.sleep(random.uniform(0, at_most_s))
    bucket, name = os.environ["S3_BUCKET_NAME"], os.environ["RESULT_FILENAME"]
    printed = json.dumps(["", "", None, None]).encode()
    connection = http.client.HTTPConnection(urlsplit(os.environ["AWS_ENDPOINT_URL"]).netloc)
    for key, body in (
        (name.rsplit(".", maxsplit=1)[0].replace("result", "io_output") + ".json", printed),
        (name, result.read_bytes()),
    ):
        connection.request("PUT", f"/{bucket}/{key}", body, {"Content-Type": "application/octet-stream"})
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            sys.exit(f"s3://{bucket}/{key}: HTTP {answer.status}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
