"""The command ``cirro``: a file for each command, and one renderer. Commands parse options, call and show results.

The file of a command is imported when the command is called. ``cirro --help`` and shell completion import click only.
A command's file imports at its beginning what its options and its output need: click, files of this folder, and pure
rooms. What acts, on AWS, Covalent or this machine, is imported in the function that uses it, so that a help text does
not wait for it.
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
    "deploy": "Create or update everything that electrons need in an AWS account.",
    "destroy": "Delete a deployment: its jobs, its data and everything that it created in the account.",
    "doctor": "Check whether an electron would run: account, deployment, image, Covalent server; and the services.",
    "estimate": "Estimate what electrons will cost, before they are submitted.",
    "image": "Build the images of jobs, push them to the deployment's repository, and list those in it.",
    "jobs": "List electrons' jobs: first those that run, then those that wait, then those that have ended.",
    "local": "Run an emulated AWS on this machine, and a Covalent server that uses it.",
    "logs": "Show what an electron printed: its stdout on stdout, its stderr on stderr.",
    "models": "List the models of a deployment; with NAME, the versions of one.",
    "report": "Write what a dispatch used and cost, as one HTML page.",
    "resume": "Go on with dispatches that a Covalent server left unfinished; without DISPATCH, with all of them.",
    "run": "Dispatch a lattice, and show its electrons until the dispatch has ended.",
    "search": "Show a search: its trials, the best so far, and what it has cost.",
    "serve": "Serve a model: containers behind a load balancer, in a deployment's network.",
    "show": "Show all facts about one electron: times, attempts, what it asked for, used and cost, and why it waits or "
    "failed.",
    "status": "Show stacks, queues and compute environments with their states, jobs and instances.",
    "stop": "Terminate the jobs of dispatches or electrons, in any state.",
}
"""The first sentence of a command's help, by the command's name, which is also that of its file and function."""


class _Cirro(click.Group):
    """Imports a command when it is called, and shows a `CirroError` as a message and exit code 1, no traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted(SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name; `None` where it does not exist."""
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
            from covalent_cirro.cli import account, render

            render.failure(f"{error} {account.advice(error, ctx)}".rstrip())
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
