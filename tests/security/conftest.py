"""An emulated account with real jobs, and a terminal that looks at it, for attacks by what a job leaves behind."""

from __future__ import annotations

from tests.cli.conftest import cirro
from tests.cli.history.conftest import account, document, executor, lab, terminal

__all__ = ["account", "cirro", "document", "executor", "lab", "terminal"]
