"""Findings about Covalent: the client here, the server, and differences between them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from covalent_cirro.jobs.findings import FAILURE, OK, WARNING, Finding

SUPPORTED = "0.240"
"""Covalent's minor version that this plugin was written for: `covalent_server/assets.py` reads its database."""

START = "`covalent start` (see `covalent status`)"
RESTART = "`covalent restart`"

AWS_VARIABLES = ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION")
"""Environment variables by which AWS's usual chain chooses account and region."""

_GIVEN_BY = {
    "AWS_PROFILE": ("profile", "credentials"),
    "AWS_ACCESS_KEY_ID": ("profile", "credentials"),
    "AWS_ENDPOINT_URL": ("endpoint_url",),
    "AWS_REGION": ("region",),
    "AWS_DEFAULT_REGION": ("region",),
}
"""Settings of the executor that take precedence over a variable."""


class InstalledVersions(NamedTuple):
    """Versions installed for a Python interpreter; `None` for a package that is not installed.

    Attributes:
        python: Version of Python, ``"3.11.7"``.
        covalent: Version of Covalent.
        cirro: Version of covalent-cirro.
        cloudpickle: Version of cloudpickle.
        plugin: Whether Covalent finds this plugin by its entry point.
        installed_at: Epoch seconds when this plugin was installed.
    """

    python: str
    covalent: str | None
    cirro: str | None
    cloudpickle: str | None
    plugin: bool
    installed_at: float | None


class Server(NamedTuple):
    """The Covalent server that a client here would use.

    Attributes:
        url: URL in Covalent's config.
        answers: Whether a Covalent server answers at the URL.
        error: Why none answers.
        local: Whether the URL is on this machine, so that the process can be read.
        started: Epoch seconds when its process started; `None` where the process was not found.
        python: Path of its Python interpreter.
        versions: Versions installed for that interpreter; `None` if unknown.
        config: Path of its config file.
        environment: Its environment variables among `AWS_VARIABLES`.
    """

    url: str
    answers: bool
    error: str = ""
    local: bool = True
    started: float | None = None
    python: str = ""
    versions: InstalledVersions | None = None
    config: str = ""
    environment: Mapping[str, str] = {}


def covalent(here: InstalledVersions) -> Finding:
    """Whether the installed Covalent is supported, and finds the plugin."""
    install = f"`pip install 'covalent>={SUPPORTED},<0.241' covalent-cirro`"
    if here.covalent is None:
        return Finding("covalent", "", FAILURE, "Covalent is not installed beside `cirro`", install)
    if not here.covalent.startswith(f"{SUPPORTED}."):
        return Finding(
            "covalent", "", FAILURE, f"Covalent {here.covalent}; this version works with {SUPPORTED} only", install
        )
    if not here.plugin:
        return Finding(
            "covalent",
            "",
            FAILURE,
            "Covalent does not find the executor plugin `cirro` here (no entry point)",
            "`pip install --force-reinstall --no-deps covalent-cirro`",
        )
    return Finding("covalent", "", OK, f"Covalent {here.covalent} with covalent-cirro {here.cirro}")


def folders(quoted: Mapping[str, str], config: str) -> list[Finding]:
    """A finding about folders whose paths Covalent cannot use; none without such folders.

    Args:
        quoted: Paths by their names in the config.
        config: Path of the config file.
    """
    told = ", ".join(f"{name} = {path!r}" for name, path in quoted.items())
    what = f"{told}: Covalent finds no file again under a path with a space, an accent or another letter than A to Z"
    remedy = f"Name other folders in {config}, then {RESTART}; or ct.get_result(id, results_dir=...) each time."
    return [Finding("covalent", "folders", FAILURE, what, remedy)] if quoted else []


def running(server: Server) -> Finding:
    """Whether a server answers."""
    if not server.answers:
        return Finding("server", server.url, WARNING, f"no Covalent server answers ({server.error})", START)
    return Finding("server", server.url, OK, "answers" + (f", run by {server.python}" if server.python else ""))


def plugin(server: Server) -> Finding:
    """Whether the server has this plugin, which must have been installed before the server started."""
    if server.versions is None or server.started is None:
        return Finding(
            "server_plugin",
            server.url,
            WARNING,
            *_unseen(server, "whether it has this plugin cannot be seen from here"),
        )
    pip = f"`{server.python} -m pip install covalent-cirro`, then {RESTART}"
    if not server.versions.plugin:
        return Finding(
            "server_plugin", server.url, FAILURE, f"its Python ({server.python}) does not have the plugin `cirro`", pip
        )
    if server.versions.installed_at is not None and server.versions.installed_at > server.started:
        return Finding(
            "server_plugin",
            server.url,
            FAILURE,
            f"it started before covalent-cirro {server.versions.cirro} was installed, and loads plugins only then",
            RESTART,
        )
    return Finding(
        "server_plugin", server.url, OK, f"covalent-cirro {server.versions.cirro}, installed before it started"
    )


def versions(here: InstalledVersions, server: Server) -> Finding:
    """Whether client and server can read each other's pickles."""
    there = server.versions
    if there is None:
        return Finding(
            "server_versions", server.url, WARNING, *_unseen(server, "its versions cannot be seen from here")
        )
    pairs = [
        ("Python", _minor(here.python), _minor(there.python), FAILURE),
        ("cloudpickle", here.cloudpickle, there.cloudpickle, WARNING),
        ("covalent", here.covalent, there.covalent, WARNING),
        ("covalent-cirro", here.cirro, there.cirro, WARNING),
    ]
    apart = [(name, mine, its, level) for name, mine, its, level in pairs if mine != its]
    if not apart:
        same = (
            f"Python {_minor(here.python)}, cloudpickle {here.cloudpickle}, covalent-cirro {here.cirro} on both sides"
        )
        return Finding("server_versions", server.url, OK, same)
    told = "; ".join(f"{name} is {mine} here and {its} there" for name, mine, its, _ in apart)
    level = FAILURE if any(each[3] == FAILURE for each in apart) else WARNING
    what = "the bytecode of functions differs between versions of Python" if level == FAILURE else "pickles may differ"
    return Finding(
        "server_versions",
        server.url,
        level,
        f"{told}: {what}",
        f"Use one environment for both: start the server from this one, or dispatch with {server.python}.",
    )


def config(server: Server, here: str) -> Finding:
    """Whether the server reads the config file that this client and `cirro deploy` use."""
    if not server.config:
        return Finding(
            "server_config", server.url, WARNING, *_unseen(server, "which config it reads cannot be seen from here")
        )
    if server.config != here:
        return Finding(
            "server_config",
            server.url,
            FAILURE,
            f"it reads {server.config}, this client reads {here}",
            "Set COVALENT_CONFIG_DIR to the same folder for both, then restart the server.",
        )
    return Finding("server_config", server.url, OK, f"reads {here}, as this client does")


def environment(server: Server, here: Mapping[str, str], given: Sequence[str]) -> Finding:
    """Whether the server uses the same AWS account as this client.

    Args:
        server: The server.
        here: Environment variables of this client.
        given: Settings of the executor that are set, and so take precedence over the environment.
    """
    if server.started is None:
        return Finding(
            "server_environment", server.url, WARNING, *_unseen(server, "its AWS account cannot be seen from here")
        )
    apart = [
        name
        for name in AWS_VARIABLES
        if not set(_GIVEN_BY[name]) & set(given) and here.get(name, "") != server.environment.get(name, "")
    ]
    if apart:
        # Keys and secrets must not be printed.
        told = ", ".join(
            name
            if name == "AWS_ACCESS_KEY_ID"
            else f"{name} ({here.get(name) or 'unset'} here, {server.environment.get(name) or 'unset'} there)"
            for name in apart
        )
        return Finding(
            "server_environment",
            server.url,
            WARNING,
            f"was started with another {told}: its jobs may go to another account than the one looked at",
            f"Set profile and region in the config (`cirro deploy --profile`), or {RESTART} from this shell.",
        )
    return Finding("server_environment", server.url, OK, "was started with the same AWS variables, or needs none")


def _unseen(server: Server, what: str) -> tuple[str, str]:
    if not server.local:
        return f"it runs on another machine: {what}", "Run `cirro doctor` there."
    return f"its process is not one of this user's: {what}", "Run `cirro doctor` as the user that it runs as."


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
