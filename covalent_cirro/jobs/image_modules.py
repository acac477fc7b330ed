"""What can be imported in a job's image, as a label of the image says it; and what users read of a module that cannot.

Pure. A label is inherited by every image that is built on one, with whatever that image adds. So the label also names
the layers that it was written for: of an image with other layers, nothing is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

PARAMETER = "missing_modules"
"""Parameter of a job with the modules that its image lacks, which no command has to search for."""

MOST = 20
"""Most modules in a parameter: a request for a job has room for 30 KiB (AWS Batch User Guide, Service quotas)."""

NAME_CHARS = 100
"""Most characters of the name of a module in a parameter; a longer one is left out."""

PARAMETER_CHARS = MOST * (NAME_CHARS + 1)
"""Most characters of a parameter."""


def dump(modules: Iterable[str], layers: Sequence[str]) -> str:
    """The value of the label `protocol.LABEL_MODULES`; empty where no layers are known.

    Args:
        modules: Names of top-level modules.
        layers: Digests of the image's unpacked layers, from the lowest to the highest one.
    """
    return " ".join([_digest(layers), *sorted(modules)]) if layers else ""


def load(label: str, layers: Sequence[str]) -> frozenset[str] | None:
    """The modules in a label; `None` if there is no label, or it was written for an image with other layers."""
    written_for, *modules = label.split() or [""]
    return frozenset(modules) if layers and written_for == _digest(layers) else None


def _digest(layers: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(map(str, layers)).encode()).hexdigest()[:32]


def dump_parameter(modules: Iterable[str]) -> str:
    """The value of `PARAMETER`; `load_parameter` reads it."""
    return " ".join([name for name in modules if len(name) <= NAME_CHARS][:MOST])


def load_parameter(text: str) -> tuple[str, ...]:
    """The modules in a `PARAMETER`, which anybody who may submit jobs can write."""
    return tuple(name for name in text.split() if name.isidentifier() and len(name) <= NAME_CHARS)[:MOST]


def warning(modules: Sequence[str]) -> str:
    """What an electron is warned of that imports modules which its image lacks, and how to ship them."""
    listed = ", ".join(f'"{name}"' for name in modules)
    packages, them = ("a package", "it") if len(modules) == 1 else ("packages", "them")
    return (
        f"it imports {', '.join(modules)}, which the job's image, deps_pip and local_packages do not have: it will "
        f"fail. Ship your own code with local_packages=[{listed}] of the executor, {packages} of an index with "
        f"deps_pip of the electron, or with an image that has {them} (`cirro image push --requirements FILE`)"
    )


def warning_lines(missing: Iterable[tuple[str, Sequence[str]]]) -> list[str]:
    """One line for all electrons of one name that lack the same modules.

    Args:
        missing: Name of each electron, and the modules that its image lacks; those that lack none are left out.
    """
    every = dict.fromkeys((name, tuple(modules)) for name, modules in missing if modules)
    return [f"{name}: {warning(modules)}" for name, modules in every]
