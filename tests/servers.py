"""A Covalent server of a test's own, beside whatever AWS its environment names."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from covalent_cirro.errors import HostError
from covalent_cirro.local import covalent_process, processes

START_S = 180.0
"""Several times what a slow, busy machine takes."""


@contextlib.contextmanager
def covalent(folder: Path, executors: Mapping[str, Mapping[str, Any]], environment: Mapping[str, str]) -> Iterator[str]:
    """A server that answers, until the block ends; gives its URL.

    Args:
        folder: For its config, data and log; ``COVALENT_CONFIG_DIR`` of its clients.
        executors: Sections of its config.
        environment: Of its process: credentials and region, and where AWS is if that is elsewhere.
    """
    port, log = processes.free_port(), folder / "covalent.log"
    covalent_process.write_config(folder, port=port, executors=executors)
    identity = processes.start(
        [sys.executable, "-m", "covalent_cirro.local.covalent_process", str(port)],
        log=log,
        environment={**environment, **covalent_process.server_environment(folder)},
        folder=folder,
    )
    try:
        answers = functools.partial(covalent_process.answers, port)
        processes.wait_for(answers, identity, log, START_S, HostError)
        yield covalent_process.url_of(port)
    finally:
        processes.end(identity, patience_s=10)
