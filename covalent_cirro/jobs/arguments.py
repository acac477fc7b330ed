"""What an electron was called with, in a few words: ``config=lr 0.03, width 16``. Pure.

A summary is made of the text ``str(value)`` that Covalent keeps of each argument, so that nothing is unpickled. A field
of a dataclass or of a dict is an argument of its own, ``config.lr``: electrons of a sweep differ in a few of them. Who
may see the job may read the summary, so that what looks like a credential is left out of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from covalent_cirro.contract.limits import ARGUMENT_CHARS, ARGUMENT_NAME_CHARS, MAX_ARGUMENTS
from covalent_cirro.settings.variables import CREDENTIAL_FORMS, URL_WITH_LOGIN

if TYPE_CHECKING:
    from covalent_cirro.contract.protocol import Arguments

TEXT_BYTES = 4096
"""Bytes of the text of an argument that are looked at."""

LINE_CHARS = 80
"""Characters of a line (`line`), at most."""

WHOLE_CHARS = 400
"""Characters of a line that is shown of one electron alone."""

CELL_CHARS = 60
"""Characters of a line in a table."""

NOT_SHOWN = "(not shown)"
"""Instead of what looks like a credential."""

_DEPTH = 3
"""How deep fields of fields are arguments of their own."""

_MORE = "..."

# --- the summary ------------------------------------------------------------------------------------------------------


def summary(given: Iterable[tuple[str, str]]) -> Arguments:
    """The summary of an electron's arguments.

    Args:
        given: Name and text of each argument. A text of `TEXT_BYTES` or more may be the beginning of a longer one.
    """
    found: dict[str, str] = {}
    for name, text in given:
        is_cut = len(text.encode("utf-8", "replace")) >= TEXT_BYTES - 4  # a character of four bytes may have been cut
        for part, value in _parts(_cleaned(name), _without_addresses(text), is_cut, _DEPTH):
            if len(found) < MAX_ARGUMENTS:
                found.setdefault(part[:ARGUMENT_NAME_CHARS].strip(), value.strip())
    return tuple(found.items())


def output_of(electron: str) -> str:
    """The text of an argument that is the output of another electron."""
    return f"{electron}()"


def _parts(name: str, text: str, is_cut: bool, depth: int) -> Iterator[tuple[str, str]]:
    """The argument, or its fields if it has some."""
    if _is_secret(name, text):
        yield name, NOT_SHOWN
        return
    fields = _fields(text.strip(), is_cut) if depth else []
    if not fields:
        yield name, _value(text, is_cut)
    for key, value in fields:
        for part, shown in _parts(_cleaned(key), value, False, depth - 1):
            yield f"{name}.{part}", shown


def _value(text: str, is_cut: bool) -> str:
    if _SECRET_TEXT.search(text):
        return NOT_SHOWN
    lines = text.strip().splitlines()
    shown = _with_short_numbers(_cleaned(text))
    if not is_cut and len(shown) <= ARGUMENT_CHARS:
        return _unquoted(shown) or "''"
    if shown[:1] in _CLOSING:
        return _beginning_of_list(shown, is_cut)
    if len(lines) > 1:  # a table or an array, whose beginning says most
        return _with_short_numbers(_cleaned(lines[0]))[: ARGUMENT_CHARS - len(_MORE)] + _MORE
    if is_cut:
        return shown[: ARGUMENT_CHARS - len(_MORE)] + _MORE
    # Paths and names mostly differ at their end.
    half = (ARGUMENT_CHARS - len(_MORE)) // 2
    return shown[:half] + _MORE + shown[-half:]


def _beginning_of_list(text: str, is_cut: bool) -> str:
    """The first items of a list, and how many it has if that is known."""
    items = [item.strip() for item in _split(text[1:] if is_cut else text[1:-1], ",")]
    end = f", {_MORE}" if is_cut or len(items) < 2 else f", {_MORE} {len(items)} in all"
    room = ARGUMENT_CHARS - len(end) - 2
    begin = ""
    for item in items:
        longer = f"{begin}, {item}" if begin else item
        if len(longer) > room:
            break
        begin = longer
    return f"{text[0]}{begin or text[1 : 1 + room]}{end}{_CLOSING[text[0]]}"


# --- fields -----------------------------------------------------------------------------------------------------------

_CLOSING = {"[": "]", "(": ")", "{": "}"}
_CLASS = re.compile(r"[^\W\d][\w.]{0,100}\(")
_FIELD = re.compile(r"([^\W\d]\w{0,100})=")


def _fields(text: str, is_cut: bool) -> list[tuple[str, str]]:
    """Fields of a dataclass, a named tuple, a dict, or of pydantic's ``a=1 b=2``; none of other texts."""
    begin, end, separator, read = 0, "", " ", _field
    if called := _CLASS.match(text):
        begin, end, separator = called.end(), ")", ","
    elif text.startswith("{"):
        begin, end, separator, read = 1, "}", ",", _entry
    elif _FIELD.match(text) is None:
        return []
    if not is_cut and not text.endswith(end):
        return []
    items = _split(text[begin:] if is_cut or not end else text[begin:-1], separator)
    found = [read(item.strip()) for item in (items[:-1] if is_cut else items)]  # a cut text cuts its last item
    return [each for each in found if each is not None] if None not in found else []


def _field(text: str) -> tuple[str, str] | None:
    """Name and value in ``lr=0.03``."""
    found = _FIELD.match(text)
    return None if found is None else (found[1], text[found.end() :])


def _entry(text: str) -> tuple[str, str] | None:
    """Key and value in ``'lr': 0.03``."""
    key, *value = _split(text, ":", most=1)
    return (_unquoted(key.strip()), value[0].strip()) if value and key.strip() else None


def _split(text: str, separator: str, most: int = 1000) -> list[str]:
    """The parts of a text between separators that are in no brackets and no quotes."""
    parts: list[str] = []
    begin, depth, quote, escaped = 0, 0, "", False
    for i, character in enumerate(text):
        if quote:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == quote:
                quote = ""
        elif character in "'\"" and not text[i - 1 : i].isalnum():  # not an apostrophe
            quote = character
        elif character in "[({":
            depth += 1
        elif character in "])}":
            depth -= 1
        elif character == separator and depth <= 0 and len(parts) < most:
            parts.append(text[begin:i])
            begin = i + 1
    last = text[begin:]
    return [*parts, last] if last.strip() else parts


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 2 and text[0] in "'\"" and text[-1] == text[0] else text


# --- texts ------------------------------------------------------------------------------------------------------------

_ANGLES = re.compile(r"<([^<>]*)>")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_KINDS = re.compile(r"(?:function|class|module|bound method|built-in method|built-in function) ")
_NUMBER = re.compile(r"(?<![\w.])(-?)(\d{1,15})\.(\d{5,40})(e[+-]?\d{1,3})?(?![\w.])")


def _without_addresses(text: str) -> str:
    """The text with the name of the class or function instead of ``<__main__.Model object at 0x7f12...>``."""

    def name(found: re.Match[str]) -> str:
        inside = found[1]
        kind = _KINDS.match(inside)
        if kind is None and _ADDRESS.search(inside) is None:
            return found[0]
        word = inside[kind.end() if kind else 0 :].split(" ", 1)[0].strip("'")
        return word.rpartition(".")[2] or word

    if "<" not in text:
        return text
    text = text.replace(".<locals>", "").replace("<lambda>", "lambda")
    return _ADDRESS.sub("", _ANGLES.sub(name, text))


def _with_short_numbers(text: str) -> str:
    """The text with six digits of each decimal number."""

    def short(found: re.Match[str]) -> str:
        sign, whole, _, exponent = found.groups()
        value = float(found[0])
        return f"{value:.{max(6, 0 if exponent else len(whole))}g}" if value else f"{sign}0.0"

    return _NUMBER.sub(short, text)


def _cleaned(text: str) -> str:
    """The text in one line of characters that can be seen."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


# --- credentials ------------------------------------------------------------------------------------------------------

_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SECRET_PARTS = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "credential",
    "apikey",
    "accesskey",
    "privatekey",
    "authtoken",
    "accesstoken",
)
_SECRET_WORDS = frozenset({"authorization", "bearer", "cookie", "jwt", "pwd"})
_COUNTED_WORDS = frozenset({"auth", "key", "keys", "pass", "token", "tokens"})
"""Words that are also in names of numbers and switches: ``max_tokens``, ``key_size``."""

_PLAIN = re.compile(r"[-+0-9.e_]{1,24}|None|True|False")

_SECRET_TEXT = re.compile(
    r"(?:password|passwd|passphrase|pwd|secret|credentials?|token|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|authorization)['\"]?\s{0,8}[=:]"
    r"|--?(?:password|passwd|token|secret|api-?key)\b"
    r"|bearer\s"
    r"|-----begin"
    rf"|{URL_WITH_LOGIN}|{CREDENTIAL_FORMS}",
    re.IGNORECASE,
)


def _is_secret(name: str, text: str) -> bool:
    """Whether the name of an argument says that its value is a credential."""
    words = [word.lower() for word in _WORDS.findall(name)]
    together = "".join(words)
    if any(part in together for part in _SECRET_PARTS) or not _SECRET_WORDS.isdisjoint(words):
        return True
    return not _COUNTED_WORDS.isdisjoint(words) and _PLAIN.fullmatch(text.strip()) is None


# --- shown ------------------------------------------------------------------------------------------------------------


def line(arguments: Arguments, most: int = LINE_CHARS) -> str:
    """The arguments in one line of at most so many characters: ``config=lr 0.03, width 16, data=load_data()``."""
    shown, last = [], ""
    for name, value in arguments:
        argument, dot, field = name.partition(".")
        if not dot:
            shown.append(f"{name}={value}")
        else:
            shown.append(f"{field} {value}" if argument == last else f"{argument}={field} {value}")
        last = argument if dot else ""
    text = _cleaned(", ".join(shown))  # a job may have been given other texts than ours
    return text if len(text) <= most else text[: most - len(_MORE)] + _MORE


def differing(of: Sequence[tuple[Hashable, Arguments]]) -> list[Arguments]:
    """For each electron its arguments, without those that all electrons of its kind have in common.

    Args:
        of: Kind and arguments of each electron. Electrons of a kind have the same function and the same dispatch.
    """
    seen: dict[tuple[Hashable, str], set[str]] = {}
    counts: dict[tuple[Hashable, str], int] = {}
    members: dict[Hashable, int] = {}
    for kind, arguments in of:
        members[kind] = members.get(kind, 0) + 1
        for name, value in arguments:
            seen.setdefault((kind, name), set()).add(value)
            counts[kind, name] = counts.get((kind, name), 0) + 1
    return [
        tuple(
            (name, value)
            for name, value in arguments
            if len(seen[kind, name]) > 1 or counts[kind, name] < members[kind]
        )
        for kind, arguments in of
    ]


# --- in a job ---------------------------------------------------------------------------------------------------------

PARAMETER_CHARS = 4096
"""Characters of a job's parameter, at most: AWS takes 30 KiB for the whole request."""


def dump_parameter(arguments: Arguments) -> str:
    """The arguments as the parameter of a job; those at the end are left out if there are too many."""
    while len(text := json.dumps(dict(arguments), separators=(",", ":"))) > PARAMETER_CHARS:
        arguments = arguments[:-1]
    return text


def load_parameter(parameter: str) -> Arguments:
    """The arguments in a parameter, which anybody may have written; none of a text in another form."""
    if len(parameter) > PARAMETER_CHARS:
        return ()
    try:
        given = json.loads(parameter)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(given, dict):
        return ()
    found = [
        (_cleaned(name)[:ARGUMENT_NAME_CHARS], _cleaned(value)[:ARGUMENT_CHARS])
        for name, value in given.items()
        if isinstance(value, str)
    ]
    return tuple(dict(found[:MAX_ARGUMENTS]).items())
