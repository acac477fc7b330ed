"""What faults change in bodies: objects are stored damaged, answers of AWS Batch repeat jobs or show them outdated.

It must not know when a fault hits, nor what the objects are.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Mapping
from typing import Any

from covalent_cirro.local.emulator.faults import Fault
from covalent_cirro.local.emulator.http.s3_bodies import BytesBody
from covalent_cirro.local.emulator.http.server import Environ

JOBS = {"DescribeJobs": "jobs", "ListJobs": "jobSummaryList"}
"""By operation, the key of the answer that has the jobs."""


def damage(environ: Environ, fault: Fault) -> None:
    """Change the body of an upload, which was read from the network already; its checksums are removed with it."""
    data: bytes = environ["wsgi.input"].read()
    if fault.pattern is not None:
        data = re.sub(fault.pattern.encode(), fault.replacement.encode(), data)
    if fault.size is not None:
        data = data[: fault.size].ljust(fault.size)
    for header in [each for each in environ if each.startswith("HTTP_X_AMZ_CHECKSUM_")] + ["HTTP_CONTENT_MD5"]:
        environ.pop(header, None)
    environ["HTTP_X_AMZ_CONTENT_SHA256"] = "UNSIGNED-PAYLOAD"
    environ["CONTENT_LENGTH"] = str(len(data))
    environ["wsgi.input"] = BytesBody(data)


class ChangedAnswers:
    """Changes answers of AWS Batch about jobs for the faults ``repeat`` and ``stale``. Safe for threads.

    Args:
        seed: Of the order in which repeated jobs come.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 (not a secret: tests want the same order each time)
        self._lock = threading.Lock()
        self._earlier: dict[tuple[str, str], Any] = {}

    def change(self, operation: str, body: bytes, faults: Mapping[str, Fault]) -> bytes:
        """The body of an answer, changed by the faults; unchanged where it has no jobs."""
        where = JOBS.get(operation)
        if where is None or not faults.keys() & {"repeat", "stale"}:
            return body
        answer = json.loads(body)
        if where not in answer:  # an error
            return body
        with self._lock:
            if "stale" in faults:
                answer[where] = [self._outdated(operation, job) for job in answer[where]]
            if "repeat" in faults:
                answer[where] = answer[where] * 2
                self._random.shuffle(answer[where])
        return json.dumps(answer).encode()

    def _outdated(self, operation: str, job: Any) -> Any:
        """The job as the answer before showed it; the first time, as it is."""
        key = (operation, job["jobId"])
        earlier, self._earlier[key] = self._earlier.get(key, job), job
        return earlier
