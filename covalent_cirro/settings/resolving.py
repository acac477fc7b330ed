"""The values that a job gets of the options: the executor's own, those of Covalent's config, and the defaults.

An option that nobody set is `None` until `resolve`; 0, "" and False are values. The executor's own options come before
the section ``[executors.cirro]`` of Covalent's config, and the section before the defaults.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping
from typing import Any

from covalent_cirro.errors import SettingsError
from covalent_cirro.settings import combinations
from covalent_cirro.settings.constants import SECTION
from covalent_cirro.settings.declared import BY_NAME, OPTIONS, Option, Settings


def plain(value: Any) -> Any:
    """The value as JSON and TOML have it: paths as texts, numbers of other libraries (NumPy) as Python's own."""
    if isinstance(value, bool):
        return value
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    return value


def _of_kind(kind: str, value: object) -> bool:
    if kind == "switch":
        return isinstance(value, bool)
    if kind == "text":
        return isinstance(value, str)
    if kind == "texts":
        return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)
    if kind in _OF_ITEMS:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) and name for name in value):
            return False
        return _OF_ITEMS[kind] is None or all(_of_kind(_OF_ITEMS[kind] or "", item) for item in value.values())
    if isinstance(value, bool):
        return False
    if kind == "whole":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    # NaN compares unequal to itself, and no need is infinite.
    return isinstance(value, (int, float)) and value == value and abs(value) != float("inf")


_OF_ITEMS = {"text by name": "text", "whole by name": "whole", "properties": None}
"""The kind of each value of a mapping; None: whatever JSON has."""


def problem(name: str, value: object) -> str | None:
    """Why ``value`` cannot be the value of the option ``name``, or `None`. ``None`` (unset) is always possible."""
    option, value = BY_NAME[name], plain(value)
    if value is None:
        return None
    if _of_kind(option.kind, value) and option.accepts(value):
        return option.refuses(value)
    return f"{name}={_shown(option, value)} is not possible: {name} is {option.valid}. {option.help}"


def _shown(option: Option, value: Any) -> str:
    """A value for messages; of variables and secrets the names only, since somebody may have given a secret itself."""
    if option.name not in ("environment", "secrets"):
        return repr(value)
    if not isinstance(value, Mapping):
        return f"(a value of type {type(value).__name__})"
    return "{" + ", ".join(f"{name!r}: ({type(each).__name__})" for name, each in value.items()) + "}"


def check(options: Mapping[str, object]) -> None:
    """Refuse what cannot work, before anything is paid for.

    Raises:
        SettingsError: An unknown option (all valid ones are named), a wrong type, or an impossible value.
    """
    unknown = [name for name in options if name not in BY_NAME]
    if unknown:
        raise SettingsError(
            f"CirroBatchExecutor has no option {', '.join(map(repr, unknown))}. Valid options, with their defaults: "
            + ", ".join(f"{option.name}={option.default!r}" for option in OPTIONS)
        )
    problems = [text for name, value in options.items() if (text := problem(name, value))]
    if problems:
        raise SettingsError(" ".join(problems))


def resolve(options: Mapping[str, object], section: Mapping[str, object]) -> Settings:
    """Settle every option.

    Args:
        options: The executor's own; `None` is unset.
        section: ``[executors.cirro]``; keys that are no option are ignored here.

    Raises:
        SettingsError: A value that cannot work; it says whether the executor or the config file has it.
    """
    values: dict[str, Any] = {}
    for option in OPTIONS:
        configured = section.get(option.name)
        value: Any = plain(options.get(option.name))
        if value is None:
            value = configured
        if value is not None and (text := problem(option.name, value)):
            # Covalent itself makes executors from the section: an equal value came from there.
            source = f"[{SECTION}] of Covalent's config" if value == configured else "the executor"
            raise SettingsError(f"{text} (set by {source})")
        values[option.name] = value
    settings = _settings(values)
    combinations.refuse(settings)
    return settings


def resolve_known(options: Mapping[str, object], section: Mapping[str, object]) -> tuple[Settings, frozenset[str]]:
    """Settle what is known of the options where an executor is made, and refuse what no other value could mend.

    The config of the Covalent server, which may be another machine's, can set what is unset here.

    Args:
        options: The executor's own, each possible by itself; `None` is unset.
        section: ``[executors.cirro]`` of this process; what is impossible there is left out.

    Returns:
        All options, of which those that nobody set have their default; and the names of the others.

    Raises:
        SettingsError: Options contradict each other.
    """
    values = {name: value for name in BY_NAME if (value := section.get(name)) is not None and not problem(name, value)}
    values |= {name: plain(value) for name, value in options.items() if value is not None}
    settings, known = _settings(values), frozenset(values)
    combinations.refuse(settings, known)
    return settings, known


def _settings(values: Mapping[str, Any]) -> Settings:
    """Settings of values that are possible; those that are missing or `None` have their default."""
    found: dict[str, Any] = {}
    for option in OPTIONS:
        value = values.get(option.name)
        if value is None:
            value = option.default
        if option.kind == "whole" and value is not None:
            value = int(value)
        elif option.kind == "texts":
            value = tuple(value)
        elif option.kind == "whole by name":
            value = {name: int(count) for name, count in value.items()}
        found[option.name] = value
    return Settings(**found)
