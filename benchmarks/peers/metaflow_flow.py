"""The flow of `with_metaflow`, which Metaflow runs as a script and uploads. It needs Metaflow alone."""

import json
import os
import zlib
from pathlib import Path

from metaflow import FlowSpec, batch, step


class Peers(FlowSpec):
    """Trivial tasks, or tasks that share a value."""

    @step
    def start(self):  # type: ignore[no-untyped-def]
        """Read the value."""
        shared = os.environ["PEERS_SHARED"]
        self.data = Path(shared).read_bytes() if shared else b""
        self.items = list(range(int(os.environ["PEERS_COUNT"])))
        self.next(self.compute, foreach="items")

    @batch(cpu=1, memory=2000)
    @step
    def compute(self):  # type: ignore[no-untyped-def]
        """One task."""
        self.result = zlib.crc32(self.data) + self.input if self.data else self.input * self.input
        self.next(self.join)

    @step
    def join(self, inputs):  # type: ignore[no-untyped-def]
        """Collect the results."""
        self.results = [each.result for each in inputs]
        self.next(self.end)

    @step
    def end(self):  # type: ignore[no-untyped-def]
        """Hand them over."""
        Path(os.environ["PEERS_RESULTS"]).write_text(json.dumps(self.results))


if __name__ == "__main__":
    Peers()
