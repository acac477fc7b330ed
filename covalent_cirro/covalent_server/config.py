"""The user's Covalent config file: the section of our executor, and what ``cirro deploy`` writes into it.

Reads and edits the file itself: comments stay, and Covalent need not be imported, which takes seconds. Knows nothing of
AWS.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from covalent_cirro.errors import HostError
from covalent_cirro.settings import BY_NAME, SECTION

if TYPE_CHECKING:
    import tomlkit

OURS = "cirro"
"""Section of the config with the last deployment and the values that it wrote, which tell them from the user's."""

IMAGE = "container_image_uri"
"""The option that ``cirro image push`` writes."""

LOCK_PATIENCE_S = 10.0
"""How long the lock of the file is waited for. Covalent takes it for milliseconds, for each electron."""


class LastDeploy(NamedTuple):
    """The deployment that was written into the config last.

    Attributes:
        stack_name: Name of the deployment.
        region: AWS region.
        profile: AWS profile; empty for AWS's usual chain.
        settings: Options of the executor, with the values that were written.
    """

    stack_name: str
    region: str
    profile: str
    settings: dict[str, str | int]


class Recorded(NamedTuple):
    """Options that were written into the config, and options that were not.

    Attributes:
        written: Options whose value in the file is new.
        kept: Options that the user had set to another value, with the user's value, which is still in the file.
    """

    written: dict[str, str | int]
    kept: dict[str, Any]


def config_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Path of Covalent's config file, as Covalent 0.240 finds it (``covalent/_shared_files/defaults.py``).

    Args:
        environment: Environment variables of the process that reads the file.
    """
    folder = environment.get("COVALENT_CONFIG_DIR") or environment.get("XDG_CONFIG_DIR")
    return Path(folder or Path.home() / ".config" / "covalent") / "covalent.conf"


def read() -> dict[str, Any]:
    """The whole config as plain values; empty where there is no file.

    Raises:
        HostError: The file cannot be read, or is not TOML.
    """
    return _load().unwrap()


def folders() -> dict[str, str]:
    """Folders into which Covalent copies results, by their name in the config; the home folder where one is not set."""
    config = read()
    home = str(Path.home())
    names = ("sdk.results_dir", "dispatcher.results_dir", "dispatcher.cache_dir")
    sections = {name: config.get(name.split(".")[0], {}) for name in names}
    return {name: str(sections[name].get(name.split(".")[1]) or home) for name in names}


def server_url() -> str:
    """URL of the Covalent server that the config names; empty where it names none."""
    dispatcher = read().get("dispatcher", {})
    address, port = dispatcher.get("address"), dispatcher.get("port")
    return f"http://{address}:{port}" if address and port else ""


def executor_section() -> dict[str, Any]:
    """The section ``[executors.cirro]``; empty where there is none."""
    section = read().get("executors", {}).get(SECTION.split(".")[1], {})
    return dict(section) if isinstance(section, dict) else {}


def last_deploy() -> LastDeploy | None:
    """The deployment that `record` wrote last; `None` where there is none."""
    ours = read().get(OURS)
    if not isinstance(ours, dict) or not ours.get("stack_name"):
        return None
    settings = ours.get("settings")
    return LastDeploy(
        stack_name=str(ours["stack_name"]),
        region=str(ours.get("region", "")),
        profile=str(ours.get("profile", "")),
        settings=dict(settings) if isinstance(settings, dict) else {},
    )


def record(
    settings: Mapping[str, str],
    *,
    stack_name: str,
    region: str,
    profile: str,
    suggested: Mapping[str, int] | None = None,
) -> Recorded:
    """Write options of a deployment into ``[executors.cirro]``, except for those that the user set.

    A value is the user's if it is neither the one that was written last nor the default of the option, which older
    versions and the stock plugin write into the file.

    Args:
        settings: Values of the executor's options that belong to the deployment.
        stack_name: Name of the deployment.
        region: AWS region.
        profile: AWS profile of the deployment; empty for AWS's usual chain.
        suggested: Values of other options. That the user has set one of them is no news: it is not in `Recorded.kept`.

    Raises:
        HostError: The file cannot be read or written, or another program holds its lock.
    """
    suggested = suggested or {}
    with _edited() as document:
        section, ours = _executor(document), _table(document, OURS)
        before = dict(ours.get("settings", {}))
        wanted: dict[str, str | int] = {**settings, **({"profile": profile} if profile else {}), **suggested}
        recorded = _merge(section, wanted, before)
        recorded = recorded._replace(kept={key: value for key, value in recorded.kept.items() if key not in suggested})
        gone = {name: _unset(name) for name in before if name not in wanted and name != IMAGE}
        section.update({name: value for name, value in gone.items() if section.get(name) == before[name]})
        image = {IMAGE: before[IMAGE]} if IMAGE in before and ours.get("stack_name") == stack_name else {}
        ours.update({"stack_name": stack_name, "region": region, "profile": profile})
        ours["settings"] = {**wanted, **image, **gone}
    return recorded


def set_image(uri: str) -> Recorded:
    """Write the image of jobs into ``[executors.cirro]``, unless the user set another one.

    Args:
        uri: URI of the image, best with its digest.

    Raises:
        HostError: The file cannot be read or written, or another program holds its lock.
    """
    with _edited() as document:
        section, ours = _executor(document), _table(document, OURS)
        before = dict(ours.get("settings", {}))
        recorded = _merge(section, {IMAGE: uri}, before)
        ours["settings"] = {**before, IMAGE: uri}
    return recorded


def forget(stack_name: str) -> list[str]:
    """Remove the options that `record` wrote for a deployment, except for those that the user changed since.

    Args:
        stack_name: Name of the deployment. Where another one was written last, nothing is removed.

    Returns:
        The options that were removed.

    Raises:
        HostError: The file cannot be read or written, or another program holds its lock.
    """
    last = last_deploy()
    if last is None or last.stack_name != stack_name:
        return []
    with _edited() as document:
        section = _executor(document)
        gone = {
            name: _unset(name) for name, value in last.settings.items() if section.get(name) == value != _unset(name)
        }
        section.update(gone)
        document[OURS].update({"stack_name": "", "settings": gone})
    return list(gone)


def _unset(name: str) -> Any:
    """The value of an option that a deployment no longer gives.

    To take its line out is not enough: a Covalent server that runs, like every process that imported Covalent, merges
    the file into what it had read, and writes all of it back.
    """
    default = BY_NAME[name].default if name in BY_NAME else None
    return "" if default is None else default


def _merge(section: Any, wanted: Mapping[str, str | int], before: Mapping[str, Any]) -> Recorded:
    written, kept = {}, {}
    for name, value in wanted.items():
        now = section.get(name)
        ours = now in (None, "", before.get(name), BY_NAME[name].default)
        if now == value:
            continue
        if ours:
            section[name] = written[name] = value
        else:
            kept[name] = now
    return Recorded(written, kept)


def _load() -> tomlkit.TOMLDocument:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    path = config_path()
    try:
        return tomlkit.parse(path.read_text("utf-8"))
    except FileNotFoundError:
        return tomlkit.document()
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise HostError(f"Covalent's config {path} cannot be read: {error}. Correct it, or move it away.") from error


def _table(document: Any, name: str) -> Any:
    import tomlkit

    if not isinstance(document.get(name), dict):
        document[name] = tomlkit.table()
    return document[name]


def _executor(document: Any) -> Any:
    return _table(_table(document, "executors"), SECTION.split(".")[1])


@contextlib.contextmanager
def _edited() -> Iterator[tomlkit.TOMLDocument]:
    """The content of the file, which is written back at the end of the block, under the lock that Covalent takes."""
    import filelock
    import tomlkit

    path = config_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock", timeout=LOCK_PATIENCE_S):
            document = _load()
            yield document
            temporary = path.with_suffix(".cirro-new")
            temporary.write_text(tomlkit.dumps(document), "utf-8")
            if path.exists():
                temporary.chmod(path.stat().st_mode & 0o7777)
            temporary.replace(path)
    except filelock.Timeout as error:
        raise HostError(
            f"Covalent's config {path} is locked by another program for {LOCK_PATIENCE_S:g} s: nothing was written. "
            "Try again."
        ) from error
    except OSError as error:
        raise HostError(f"Covalent's config {path} cannot be written: {error.strerror}.") from error
