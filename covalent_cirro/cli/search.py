"""``cirro search``: shows a search from its study alone. Shows what `search.table` and `search.pictures` make."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from covalent_cirro.cli import render
from covalent_cirro.cli.options import json_option
from covalent_cirro.errors import SearchError

if TYPE_CHECKING:
    import optuna

LOOK_S = 2.0
"""Seconds between two reads of the study."""


@click.command()
@click.argument("study")
@click.option(
    "--storage",
    required=True,
    envvar="CIRRO_STORAGE",
    metavar="URL",
    help="Optuna's storage, as the script names it: sqlite:///digits.db. Also as the variable CIRRO_STORAGE.",
)
@click.option("--watch", is_flag=True, help="Keep the table up to date until Ctrl-C.")
@click.option(
    "--pictures",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Draw the history, the regret, the learning curves and what the parameters matter.",
)
@json_option
def search(study: str, storage: str, watch: bool, pictures: Path | None, as_json: bool) -> None:
    """Show a search: its trials, the best so far, and what it has cost.

    STUDY is the name of the study. Reads the study only, so it works in any terminal, while the search runs and after.

    \b
    cirro search digits --storage sqlite:///digits.db
    """
    if watch and as_json:
        raise click.UsageError("--watch is for people; with --json, call the command again.")
    loaded = _load(study, storage)
    from covalent_cirro.search import table

    if as_json:
        render.document(table.document(loaded))
    elif watch:
        with contextlib.suppress(KeyboardInterrupt), render.live() as show:
            while True:
                found = table.rows(loaded)
                show(*table.cells(found), table.summary(loaded, found))
                time.sleep(LOOK_S)
    else:
        found = table.rows(loaded)
        render.table(*table.cells(found))
        render.line(table.summary(loaded, found))
    if pictures is not None:
        from covalent_cirro.search.pictures import draw as draw_pictures

        for path in draw_pictures(loaded, pictures):
            render.done(str(path))


def _load(name: str, storage: str) -> optuna.Study:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise SearchError("a search needs Optuna: pip install 'covalent-cirro[search]'.") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if storage.startswith("sqlite:///") and not Path(storage.removeprefix("sqlite:///")).exists():
        raise SearchError(f"there is no file {storage.removeprefix('sqlite:///')}: is --storage that of the script?")
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError as error:
        raise SearchError(f"{storage} has no study {name!r}: there is {_studies(storage)}.") from error
    except Exception as error:  # of SQLAlchemy and the database's own library, many kinds
        raise SearchError(f"the storage {storage} cannot be read: {error}") from error


def _studies(storage: str) -> Any:
    import optuna

    return ", ".join(repr(each) for each in optuna.get_all_study_names(storage)) or "none"
