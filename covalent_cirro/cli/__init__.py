"""The command ``cirro``: a file for each command, and one renderer. Commands parse options, call and show results."""

from __future__ import annotations

import sys
from typing import Any

import click

from covalent_cirro import __version__
from covalent_cirro.cli import render, terminal
from covalent_cirro.cli.deploy import deploy
from covalent_cirro.cli.destroy import destroy
from covalent_cirro.cli.doctor import doctor
from covalent_cirro.cli.estimate import estimate
from covalent_cirro.cli.image import image
from covalent_cirro.cli.jobs import jobs
from covalent_cirro.cli.local import local
from covalent_cirro.cli.logs import logs
from covalent_cirro.cli.report import report
from covalent_cirro.cli.resume import resume
from covalent_cirro.cli.run import run
from covalent_cirro.cli.show import show
from covalent_cirro.cli.status import status
from covalent_cirro.cli.stop import stop
from covalent_cirro.errors import CirroError


class _Cirro(click.Group):
    """Shows a `CirroError` as a message without a traceback, and ends with exit code 1."""

    def main(self, *args: Any, **options: Any) -> Any:
        terminal.prepare()
        return super().main(*args, **options)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except CirroError as error:
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


main.add_command(deploy)
main.add_command(destroy)
main.add_command(doctor)
main.add_command(estimate)
main.add_command(image)
main.add_command(local)
main.add_command(report)
main.add_command(resume)
main.add_command(run)
main.add_command(status)
main.add_command(jobs)
main.add_command(logs)
main.add_command(show)
main.add_command(stop)
