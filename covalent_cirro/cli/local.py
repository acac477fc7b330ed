"""``cirro local``: the local stack, an emulated AWS with or without a Covalent server. Shows what `local` does."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from covalent_cirro.cli import render
from covalent_cirro.errors import CirroError
from covalent_cirro.jobs.formatting import counted

if TYPE_CHECKING:
    from covalent_cirro.local.local_stack import LocalStack

NOT_RUNNING = 3
"""Exit code of ``status`` where nothing runs, as with ``systemctl status``."""

NOT_FOUND = 127
"""Exit code of ``exec`` where the program does not exist, as a shell has it."""

SET = ("AWS_", "COVALENT_")
"""How the names of the variables begin that ``env`` sets and unsets."""

Command = TypeVar("Command", bound=Callable[..., Any])


def _state_dir(command: Command) -> Command:
    return click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=".cirro",
        show_default=True,
        envvar="CIRRO_STATE_DIR",
        show_envvar=True,
        help="Folder with all files of the local stack. Each folder has its own local stack.",
    )(command)


@click.group()
def local() -> None:
    """Run an emulated AWS on this machine, and a Covalent server that uses it."""


@local.command()
@click.option("--server", is_flag=True, help="Start a Covalent server too, with its own config, data and port.")
@click.option(
    "--vcpus",
    type=click.IntRange(min=1),
    help="vCPUs of the emulated account, which limit how many jobs run. Unset: this machine's cores.",
)
@click.option(
    "--docker",
    is_flag=True,
    help="Run jobs as containers of their container_image_uri, on the Docker engine of this machine.",
)
@click.option(
    "--image",
    "images",
    metavar="NAME=FOLDER",
    multiple=True,
    help="Where the Python packages of an image are, for services whose tasks are processes; may be repeated.",
)
@_state_dir
def up(server: bool, vcpus: int | None, docker: bool, images: tuple[str, ...], state_dir: Path) -> None:
    """Start the emulated AWS and deploy in it. What runs already is left as it is."""
    folders = dict(_image(each) for each in images)
    playground = _stack(state_dir)
    before = playground.status()
    with render.steps() as say:
        now = playground.up(server=server, vcpus=vcpus, docker=docker, images=folders, say=say)
    verb = "runs already" if before.endpoint_url == now.endpoint_url else "runs"
    render.done(f"the emulated AWS {verb} at {now.endpoint_url}, with the deployment {now.deployment!r}")
    if now.server_url is not None:
        verb = "runs already" if before.server_url == now.server_url else "runs"
        render.done(f"the Covalent server {verb} at {now.server_url}")
    at = "" if state_dir == Path(".cirro") else f" --state-dir {state_dir}"
    if not at:
        render.line(f"Use it: every command in this folder does, such as {_called()} run FILE or {_called()} jobs")
        render.line(f"In other programs: {_called()} local exec -- python your_script.py")
    else:
        render.line(f"Use it: {_called()} local exec{at} -- python your_script.py")
    render.line(f"Stop it: {_called()} local down{at}")


@local.command()
@_state_dir
def down(state_dir: Path) -> None:
    """End what `up` started, jobs included, and remove its state."""
    with render.steps() as say:
        stopped = _stack(state_dir).down(say)
    render.done("the local stack is stopped" if stopped else "no local stack runs here")
    above = _used(state_dir)
    if not stopped and above != state_dir:
        render.line(f"One runs in {above}: {_called()} local down --state-dir {shlex.quote(str(above))}")


@local.command(epilog=f"Exit codes: 0 the emulator runs; {NOT_RUNNING} it does not.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON document.")
@_state_dir
def status(as_json: bool, state_dir: Path) -> None:
    """Show what runs, where, and the jobs by state."""
    now = _stack(_used(state_dir)).status()
    if as_json:
        render.document(asdict(now))
    else:
        counts = {state: count for state, count in now.jobs.items() if count}
        render.facts(
            [
                ("emulated AWS", now.endpoint_url or "does not run"),
                ("deployment", now.deployment or "not made"),
                ("jobs", counted(counts) or "none"),
                ("Covalent UI", now.server_url or "does not run"),
            ]
        )
    if now.endpoint_url is None:
        sys.exit(NOT_RUNNING)


@local.command(
    name="exec",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog=f"Exit codes: those of the command; {NOT_FOUND} it does not exist; 1 no local stack runs.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_state_dir
def run(command: tuple[str, ...], state_dir: Path) -> None:
    """Run COMMAND with the local stack as its AWS and its Covalent server.

    \b
    cirro local exec -- python examples/sweep.py
    cirro local exec -- aws s3 ls
    """
    environment = _stack(_used(state_dir)).environment(os.environ)
    program = shutil.which(command[0], path=environment["PATH"])
    if program is None:
        render.failure(f"there is no program {command[0]!r} on the path. Check its name.")
        sys.exit(NOT_FOUND)
    try:
        os.execve(program, command, environment)  # noqa: S606  (signals and exit code are the command's own)
    except OSError as error:
        raise CirroError(f"{program} cannot be run: {error.strerror}") from error


@local.command()
@_state_dir
def env(state_dir: Path) -> None:
    """Print commands for a shell, after which every program in it uses the local stack as AWS and Covalent.

    \b
    eval "$(cirro local env)"

    For `aws`, scripts and notebooks. Open another terminal for your own AWS. Commands of cirro need none of this in
    the folder of the local stack.
    """
    wanted = _stack(_used(state_dir)).environment(os.environ)
    kept = {name: value for name, value in wanted.items() if name.startswith(SET)}
    gone = sorted(name for name in os.environ if name.startswith(SET) and name not in kept)
    lines = [f"unset {name}" for name in gone if name.isidentifier()]  # no shell can unset another
    lines += [f"export {name}={shlex.quote(value)}" for name, value in sorted(kept.items())]
    render.raw("\n".join([*lines, f'# For a shell: eval "$({_called()} local env)"', ""]))


def _image(given: str) -> tuple[str, Path]:
    name, _, folder = given.partition("=")
    if not name or not folder or not Path(folder).is_dir():
        raise click.BadParameter(f"{given!r} is no NAME=FOLDER with a folder that exists.", param_hint="--image")
    return name, Path(folder)


def _used(state_dir: Path) -> Path:
    """The state folder that the user named, or that of the local stack that runs in this folder or above."""
    from covalent_cirro.local import nearest

    if click.get_current_context().get_parameter_source("state_dir") is not ParameterSource.DEFAULT:
        return state_dir
    try:
        running = nearest.find().running
    except CirroError:  # whoever reads the state of this folder next says so
        running = None
    return state_dir if running is None else running.state_dir


def _stack(state_dir: Path) -> LocalStack:
    from covalent_cirro.local.local_stack import LocalStack

    return LocalStack(state_dir)


def _called() -> str:
    """The command for this program: with its path where the virtual environment is not activated."""
    called = Path(sys.argv[0])
    if called.name != "cirro" or shutil.which("cirro"):
        return "cirro"
    return min(os.path.relpath(called), str(called), key=len)
