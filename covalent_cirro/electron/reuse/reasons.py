"""Why an electron's work is not that of an earlier dispatch, in a few words for users.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from covalent_cirro.electron.reuse.work import Work, WorkPart

MOST = 5
"""Differences that are named; the number of the others is told."""


def nearest(work: Work, earlier: Iterable[Work]) -> Work | None:
    """The earlier work with the fewest differences, of electrons of the same names; the last one of several."""
    least: tuple[int, Work] | None = None
    for each in earlier:
        if each.names == work.names:
            number = len(_changed(work, each))
            least = (number, each) if least is None or number <= least[0] else least
    return least[1] if least is not None else None


def changes(work: Work, earlier: Work) -> str:
    """What an earlier work of the same electrons differs in, such as ``"lab/helpers.py changed, another image"``."""
    changed = _changed(work, earlier)
    parts = [each for each in changed if isinstance(each, WorkPart)]
    # Where packages were compared as a whole, their files are not known, or those of one side only.
    whole = any(part.kind == "package" for part in parts)
    paths = [each for each in changed if isinstance(each, str) and not whole]
    if WorkPart("packages") in parts:
        parts = [part for part in parts if part.kind != "package"]
    said = [_said(part, work, len(work.names) > 1) for part in parts]
    for path in paths:
        what = (
            "is new" if path not in earlier.files else "is not used any more" if path not in work.files else "changed"
        )
        said.append(f"{path} {what}")
    said = list(dict.fromkeys(said))
    return ", ".join(said[:MOST]) + (f" and {len(said) - MOST} more" if len(said) > MOST else "")


def _changed(work: Work, earlier: Work) -> list[WorkPart | str]:
    parts = [part for part in {**work.parts, **earlier.parts} if work.parts.get(part) != earlier.parts.get(part)]
    paths = [path for path in {**work.files, **earlier.files} if work.files.get(path) != earlier.files.get(path)]
    return [*parts, *sorted(paths)]


def _said(part: WorkPart, work: Work, in_group: bool) -> str:
    of = f"{work.names[part.task]}: " if in_group and 0 <= part.task < len(work.names) else ""
    name = part.name
    if part.kind == "position":
        parameters = work.parameters[part.task] if part.task < len(work.parameters) else ()
        at = int(name) - 1
        name = parameters[at] if at < len(parameters) else name
    return of + _WORDS[part.kind].format(name=name)


_WORDS = {
    "function": "its function changed, or what of its script it uses",
    "position": "argument {name} is another one",
    "argument": "argument {name} is another one",
    "items": "argument {name} is another one",
    "arguments": "its arguments have other names or another order",
    "hook": "{name} changed",
    "package": "the package {name} changed",
    "packages": "local_packages has other packages",
    "image": "another image",
    "variables": "environment or secrets are others",
    "Python": "another version of Python",
}
"""What is said of each kind of part (`work.WorkPart`)."""
