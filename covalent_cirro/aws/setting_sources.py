"""Finds where a user set what AWS's chain uses: the variable, profile or program that an error message names.

Only for error messages: it reads the environment and AWS's config files, and decides nothing.
"""

from __future__ import annotations

import os
import re
import shlex
from urllib.parse import urlsplit

CONFIG_FILE = "~/.aws/config"
"""The file of profiles, unless AWS_CONFIG_FILE names another (AWS SDKs and Tools Reference Guide)."""

CREDENTIALS_FILE = "~/.aws/credentials"
"""The file of keys, unless AWS_SHARED_CREDENTIALS_FILE names another (the same guide)."""

CREDENTIAL_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
"""Variables with which a user, a CI system or a container gives credentials (AWS SDKs and Tools Reference Guide)."""

_PROFILE_VARIABLES = ("AWS_DEFAULT_PROFILE", "AWS_PROFILE")
"""In the order in which botocore reads them (``configprovider.py``)."""

_REGION_VARIABLES = ("AWS_DEFAULT_REGION", "AWS_REGION")

_ENDPOINT = re.compile(r"Invalid endpoint: (?P<one>\S*)|Custom endpoint `(?P<other>.*?)` was not a valid URI")
"""Messages with which botocore (``args.py``, ``endpoint.py``) and its rules for S3 refuse an endpoint."""


def _set_by(variables: tuple[str, ...]) -> tuple[str, str]:
    return next(((name, os.environ[name]) for name in variables if os.environ.get(name)), ("", ""))


def _config_file() -> str:
    return os.environ.get("AWS_CONFIG_FILE") or CONFIG_FILE


def profile(given: str | None) -> str:
    """The profile that is used, with what sets it: ``profile='lab'``, ``AWS_PROFILE='lab'``."""
    variable, value = _set_by(_PROFILE_VARIABLES)
    return f"profile={given!r}" if given or not variable else f"{variable}={value!r}"


def names_an_account() -> bool:
    """Whether the user has set any credentials on this machine, right or wrong ones: a variable, or a file of AWS's."""
    files = (_config_file(), os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or CREDENTIALS_FILE)
    return bool(_set_by((*_PROFILE_VARIABLES, *CREDENTIAL_VARIABLES))[0]) or any(
        os.path.exists(os.path.expanduser(file)) for file in files
    )


def account_variables() -> list[str]:
    """The environment variables that are set and choose an account, a profile with its value, a key without."""
    variable, value = _set_by(_PROFILE_VARIABLES)
    profile = [f"{variable}={value!r}"] if variable else []
    return profile + [name for name in CREDENTIAL_VARIABLES if os.environ.get(name)]


def login(given: str | None) -> str:
    """The command that starts an SSO session for the profile that is used."""
    name = given or _set_by(_PROFILE_VARIABLES)[1]
    return f"aws sso login --profile {shlex.quote(name)}" if name else "aws sso login"


def region(given: str | None) -> str:
    """The region that is used, with what sets it: ``region='eu-west-1'``."""
    variable, value = _set_by(_REGION_VARIABLES)
    return f"region={given!r}" if given or not variable else f"{variable}={value!r}"


def endpoint(error: Exception, given: str | None) -> str:
    """What is wrong with the endpoint that botocore refused; empty if the error is about something else."""
    variables = {name: os.environ[name] for name in sorted(os.environ) if name.startswith("AWS_ENDPOINT_URL")}
    refused = _ENDPOINT.search(str(error))
    url = (refused["one"] or refused["other"] or "") if refused else ""
    where = next((name for name, value in variables.items() if refused and value == url), "")
    if refused is None:
        # Not all errors name the URL: "Invalid IPv6 URL" and "Not supported URL scheme" do not.
        settings = {**variables, **({"endpoint_url": given} if given else {})}
        where, url = next(((name, value) for name, value in settings.items() if value and not is_url(value)), ("", ""))
        if not where:
            return ""
    name = where or ("endpoint_url" if given else f"endpoint_url in {_config_file()}")
    return f"{name}={url!r} is no URL: it has to begin with http:// or https://, and a host has to follow."


def is_url(url: str) -> bool:
    """Whether a text is a URL that an endpoint can have."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of an IPv6 address without its end, or a port that is no number
        return False


def credential_process(error: Exception, given: str | None) -> str:
    """What to do about the profile's ``credential_process``; empty if the error does not come from that program."""
    failed = getattr(error, "kwargs", {}).get("provider") == "custom-process"
    unreadable = isinstance(error, ValueError) and _raised_in_credentials(error)
    file = error.filename if isinstance(error, OSError) else None
    # The files are read only where the error may come from the program: broken connections are frequent.
    command = _command(given) if failed or unreadable or file else ""
    missing = file is not None and file == next(iter(_words(command)), "")
    if not command or not (failed or unreadable or missing):
        return ""
    wrong = "is not there, or cannot be run" if missing else "did not give credentials in JSON"
    return (
        f"The program of credential_process = {command} {wrong} ({_config_file()}, {profile(given)}). Run it by hand "
        "to see what it says; the Covalent server looks for it on the PATH that it was started with."
    )


def _command(given: str | None) -> str:
    import botocore.session

    try:
        config = botocore.session.Session(profile=given).get_scoped_config()
    except Exception:  # the caller that needs the file reports that it cannot be read
        return ""
    return str(config.get("credential_process") or "")


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return command.split()


def _raised_in_credentials(error: Exception) -> bool:
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").endswith("botocore.credentials"):
            return True
        trace = trace.tb_next
    return False
