"""What was measured of a case, and the file that keeps it. Pure, but for that file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from figures import count

PUTS = ("s3:PutObject", "s3:UploadPart")
SUBMIT = "batch:SubmitJob"


@dataclass(frozen=True)
class Measurement:
    """A case, as it was measured.

    Attributes:
        tool: Name of the tool.
        title: Its name and version.
        work: Name of the work.
        way: How it was done.
        jobs: Jobs of AWS Batch that computed.
        calls: Count and bytes by operation, of the callers ``client`` (the driver) and ``job``.
        definitions: Job definitions registered, those of the set-up included.
        seconds: From the call to the results.
        client_peak_mb: Peak of resident memory of the process that called.
        client_growth_mb: How much of it the call added.
        server_growth_mb: Growth of the Covalent server's peak; `None` without a server.
        children: Processes that the caller started.
        children_peak_mb: Peak of their resident memory, together.
        at: When; UTC.
    """

    tool: str
    title: str
    work: str
    way: str
    jobs: int
    calls: Mapping[str, Mapping[str, Mapping[str, int]]]
    definitions: int
    seconds: float
    client_peak_mb: float
    client_growth_mb: float
    server_growth_mb: float | None
    children: int
    children_peak_mb: float
    at: str

    @property
    def total(self) -> int:
        """All calls."""
        return self.of("client") + self.of("job")

    def of(self, caller: str) -> int:
        """Calls of a caller."""
        return count(self.calls[caller])

    @property
    def submits(self) -> int:
        """Calls of SubmitJob."""
        return sum(count(calls, SUBMIT) for calls in self.calls.values())

    @property
    def put_bytes(self) -> int:
        """Bytes of all bodies put to S3."""
        return sum(count(calls, *PUTS, field="bytes_in") for calls in self.calls.values())

    @property
    def driver_mb(self) -> float:
        """Memory of the driver that is compared: growth of a server, else the peak of the process and its children."""
        if self.server_growth_mb is not None:
            return self.server_growth_mb
        return self.client_peak_mb + self.children_peak_mb


def read(file: Path) -> list[Measurement]:
    """What was measured before; nothing where there is no file."""
    return [Measurement(**each) for each in json.loads(file.read_text())] if file.is_file() else []


def write(file: Path, measurements: Iterable[Measurement]) -> None:
    """Keep measurements."""
    file.write_text(json.dumps([asdict(each) for each in measurements], indent=1) + "\n")


def merged(
    before: Iterable[Measurement], new: Sequence[Measurement], order: Sequence[tuple[str, str]]
) -> list[Measurement]:
    """Earlier measurements with new ones in their place.

    Args:
        before: Those kept.
        new: Those of this run.
        order: Tool and case, as ``(tool, work and way)``, in the order of the page; others are dropped.
    """
    found = {key(each): each for each in (*before, *new)}
    return [found[each] for each in order if each in found]


def key(measurement: Measurement) -> tuple[str, str]:
    """What a measurement is of."""
    return measurement.tool, f"{measurement.work}: {measurement.way}"
