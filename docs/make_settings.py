"""Writes the table of options in docs/settings.md from `covalent_cirro.settings`: ``python docs/make_settings.py``."""

from __future__ import annotations

from pathlib import Path

from covalent_cirro.settings import OPTIONS

PAGE = Path(__file__).parent / "settings.md"
BEGIN, END = "<!-- options: made by docs/make_settings.py -->", "<!-- end of options -->"


def table() -> str:
    """One row an option."""
    rows = ["| option | default | valid | what it is |", "| --- | --- | --- | --- |"]
    for option in OPTIONS:
        default = "" if option.default in (None, ()) else f"`{option.default!r}`"
        name = f"`{option.name}`" + ("" if option.stock else " *")
        rows.append(f"| {name} | {default} | {option.valid} | {option.help} |")
    return "\n".join(rows)


def page(text: str) -> str:
    """The page with its table made anew."""
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
