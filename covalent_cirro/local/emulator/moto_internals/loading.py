"""Imports moto, replaces its attributes, gives its WSGI application, and removes what it holds of an account.

moto's backends live in this process, so that everything here is a plain call. Nothing is imported before it is needed:
moto takes seconds.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from covalent_cirro.errors import EmulatorError
from covalent_cirro.local.emulator.http.server import HEADER_NAMES
from covalent_cirro.local.emulator.moto_internals import WRITTEN_FOR

PARTITION = "aws"

KEY_BUFFER_BYTES = 1 << 20
"""Objects of S3 up to this size stay in memory; moto writes larger ones to a temporary file."""

IMPORTING = threading.RLock()
"""Held while moto is imported: its packages import each other in circles, and a second thread would see them half
made."""

log = logging.getLogger("covalent_cirro.local.emulator")

replaced: list[str] = []
"""Full names of all attributes of moto that were replaced in this process, in that order."""


def preload() -> None:
    """Import what nearly every use needs. Every use of moto comes after this, or holds `IMPORTING`."""
    with IMPORTING:
        import moto.iam.models
        import moto.logs.models
        import moto.moto_server.werkzeug_app
        import moto.s3.responses
        import moto.sts.models  # noqa: F401


def once(install: Callable[[], None]) -> Callable[[], None]:
    """Make a function that replaces attributes of moto do so at its first call, and nothing at later ones."""
    done = False

    @functools.wraps(install)
    def first_call_only() -> None:
        nonlocal done
        with IMPORTING:
            if not done:
                install()
                done = True

    return first_call_only


def replace(owner: Any, name: str, new: Any) -> None:
    """Replace an attribute of one of moto's classes or modules.

    Args:
        owner: The class or module.
        name: Name of the attribute.
        new: The new value.

    Raises:
        EmulatorError: moto has no such attribute: this is not the version that the emulator was written for.
    """
    full_name = (
        f"{owner.__module__}.{owner.__qualname__}.{name}" if isinstance(owner, type) else f"{owner.__name__}.{name}"
    )
    # A property may take the place of an attribute that only instances have: their `__init__` sets it.
    if not hasattr(owner, name) and name not in _set_by_init(owner):
        raise EmulatorError(
            f"the emulated AWS cannot replace {full_name}: the installed moto has no such attribute. Install the "
            f"version that the emulator was written for: pip install 'moto[cloudformation,server]=={WRITTEN_FOR}.*'"
        )
    setattr(owner, name, new)
    replaced.append(full_name)


def _set_by_init(owner: Any) -> tuple[str, ...]:
    code = getattr(getattr(owner, "__init__", None), "__code__", None)
    return () if code is None else code.co_names


def data_file(*parts: str) -> Path:
    """A file that moto carries, found without importing moto.

    Args:
        parts: Folders and name, below the folder of the package ``moto``.
    """
    spec = importlib.util.find_spec("moto")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.joinpath(*parts)


class MotoApplication:
    """moto's WSGI application, imported at its first request.

    Args:
        prepare: Each is called before that, to replace attributes of moto that all requests depend on.
    """

    def __init__(self, prepare: Iterable[Callable[[], None]]) -> None:
        self._prepare = tuple(prepare)
        self._application: Any = None

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        """Answer one request."""
        if self._application is None:
            with IMPORTING:
                os.environ.setdefault("MOTO_S3_DEFAULT_KEY_BUFFER_SIZE", str(KEY_BUFFER_BYTES))
                preload()
                from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

                for each in self._prepare:
                    each()
                application: Any = DomainDispatcherApplication(create_backend_app)
                application.lock = IMPORTING  # the application imports a service at the first request to it
                self._application = application
        environ["moto.preserved_header_names"] = environ.get(HEADER_NAMES, {})
        return self._application(environ, start)


def forget_account(account: str) -> None:
    """Remove everything that moto holds of an account."""
    if "moto.core.base_backend" not in sys.modules:
        return
    preload()
    from moto.core.base_backend import BackendDict

    for backends in list(BackendDict._instances):
        if account not in list(backends.keys()):
            continue
        for backend in list(backends[account].values()):
            try:
                backend.reset()
            except Exception:  # the next statement removes the backend
                log.debug("moto's %s cannot be reset", type(backend).__name__, exc_info=True)
        del backends[account]
    if "moto.s3.models" in sys.modules:
        from moto.s3.models import s3_backends

        owners = s3_backends.bucket_accounts
        for bucket in [name for name, (_, owner) in list(owners.items()) if owner == account]:
            del owners[bucket]
