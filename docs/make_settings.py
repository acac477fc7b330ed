"""Writes what is made from the options in `covalent_cirro.settings`: ``python docs/make_settings.py``.

The table in docs/settings.md, and of `CirroBatchExecutor` the signature of the constructor and the arguments in the
docstring.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from covalent_cirro.settings import OPTIONS, Option

PAGE = Path(__file__).parent / "settings.md"
BEGIN, END = "<!-- options: made by docs/make_settings.py -->", "<!-- end of options -->"

EXECUTOR = Path(__file__).parents[1] / "covalent_cirro" / "cirro.py"
WIDTH = 120
ANNOTATIONS = {
    "text": "str",
    "whole": "int",
    "number": "float",
    "switch": "bool",
    "texts": "Sequence[str]",
    "text by name": "Mapping[str, str]",
    "whole by name": "Mapping[str, int]",
    "properties": "Mapping[str, Any]",
}
PATH_ANNOTATIONS = {"text": "str | os.PathLike[str]", "texts": "Sequence[str | os.PathLike[str]]"}


def table() -> str:
    """One row an option."""
    rows = ["| option | default | valid | what it is |", "| --- | --- | --- | --- |"]
    for option in OPTIONS:
        default = f"`{option.default!r}`" if has_default(option) else ""
        name = f"`{option.name}`" + ("" if option.stock else " *")
        rows.append(f"| {name} | {default} | {option.valid} | {option.help} |")
    return "\n".join(rows)


def page(text: str) -> str:
    """The page with its table made anew."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


def has_default(option: Option) -> bool:
    """Whether the option has a value where nobody set one."""
    return option.default not in (None, (), {})


def argument(option: Option) -> str:
    """The option in the docstring: the first sentence of its help, the range of a number, and the default."""
    sentence = re.split(r"(?<=\.) (?=[A-Z])", option.help)[0]
    if option.kind in ("whole", "number"):
        sentence = f"{sentence[:-1]}: {option.valid}."
    default = f" Default: {option.default!r}." if has_default(option) else ""
    indent = " " * 8
    return textwrap.fill(
        f"{option.name}: {sentence}{default}",
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}    ",
        break_on_hyphens=False,
    )


def parameter(option: Option) -> str:
    """The option in the signature of the constructor."""
    annotation = (PATH_ANNOTATIONS if option.is_path else ANNOTATIONS)[option.kind]
    return f"        {option.name}: {annotation} | None = None,"


def executor(text: str) -> str:
    """The module of the executor with the arguments in the docstring and the signature made anew."""
    arguments = "\n".join(map(argument, OPTIONS))
    stock = [parameter(option) for option in OPTIONS if option.stock]
    ours = [parameter(option) for option in OPTIONS if not option.stock]
    signature = "\n".join([*stock, "        *,", *ours])
    text = between(text, "    Args:\n", "\n\n    Raises:", arguments)
    return between(text, "    def __init__(\n        self,\n", "\n        **unknown", signature)


def between(text: str, begin: str, end: str, new: str) -> str:
    """The text with what is between the first ``begin`` and the ``end`` after it replaced."""
    head, rest = text.split(begin, 1)
    return f"{head}{begin}{new}{end}{rest.split(end, 1)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
    EXECUTOR.write_text(executor(EXECUTOR.read_text()))
