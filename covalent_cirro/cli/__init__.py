"""The command ``cirro``: one file a command, one renderer. Commands parse, call and show; they decide nothing.

A command's file is imported when that command is called, and nothing but click before: ``cirro --help`` and shell
completion answer at once.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from covalent_cirro import __version__
from covalent_cirro.cli import terminal
from covalent_cirro.errors import CirroError

SUMMARIES = {
    "deploy": "Make all that electrons need in an AWS account, or bring it up to date.",
    "destroy": "Delete a deployment: its jobs, its data and all that it made in the account.",
    "doctor": "Tell whether an electron would run: look at account, deployment, image and Covalent server.",
    "estimate": "Tell what electrons will cost, before they are submitted.",
    "image": "The images that jobs run in: build them, push them to the deployment's repository, list what is there.",
    "jobs": "List electrons' jobs: what runs first, then what waits, then what has ended.",
    "local": "An emulated AWS on this machine, and a Covalent server that uses it.",
    "logs": "Show what an electron printed: its stdout on stdout, its stderr on stderr.",
    "report": "Write what a dispatch used and cost, as one HTML page.",
    "resume": "Go on with dispatches that a Covalent server left unfinished.",
    "run": "Dispatch a lattice and watch its electrons until it has ended.",
    "show": "Tell all that is known of one electron: times, attempts, what it asked for, used and cost, why it waits, "
    "failed.",
    "status": "Show stacks, queues and compute environments, their health, and how full they are.",
    "stop": "End the jobs of dispatches or electrons, in whatever state they are.",
}
"""By a command's name, which is that of its file: the first sentence of its help."""


class _Cirro(click.Group):
    """Imports a command when it is called, and turns our errors into one message and exit code 1, without traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted(SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; `None` where there is none."""
        if cmd_name not in SUMMARIES:
            return None
        command = getattr(importlib.import_module(f"{__name__}.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, as click does, but without importing them."""
        names = self.list_commands(ctx)
        limit = formatter.width - 6 - max(map(len, names))  # as click.Group computes it
        shown = [(name, click.Command(name, help=SUMMARIES[name]).get_short_help_str(limit)) for name in names]
        with formatter.section("Commands"):
            formatter.write_dl(shown)

    def main(self, *args: Any, **options: Any) -> Any:
        terminal.prepare()
        return super().main(*args, **options)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except CirroError as error:
            from covalent_cirro.cli import render

            render.failure(str(error))
            sys.exit(1)
        except click.ClickException as error:  # click prints it
            error.message = terminal.harmless(error.message)  # type: ignore[misc]
            raise


@click.group(
    cls=_Cirro,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done; 1 failed, with the reason on stderr; 2 wrong usage; others are named by the command.",
)
@click.version_option(__version__, prog_name="cirro")
def main() -> None:
    """Run the electrons of a Covalent lattice as AWS Batch jobs."""
