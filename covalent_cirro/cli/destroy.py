"""``cirro destroy``: deletes a deployment, and checks that nothing of it is left. Shows what `teardown` does."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from covalent_cirro.cli import account, render
from covalent_cirro.cli.deploy import show_event
from covalent_cirro.cli.options import Target, json_option, target_options
from covalent_cirro.errors import Declined
from covalent_cirro.jobs.formatting import counted, size

if TYPE_CHECKING:
    from covalent_cirro.deployment.holdings import Holdings, Proof


@click.command(epilog="Exit codes: 0 nothing is left; 1 something is left, which is listed, or it failed.")
@click.option("--keep-data", is_flag=True, help="Keep bucket, images and logs for the next deploy.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@target_options
@json_option
def destroy(target: Target, keep_data: bool, yes: bool, as_json: bool) -> None:
    """Delete a deployment: its jobs, its data and everything that it created in the account.

    Shows what will be deleted and asks, terminates the jobs, deletes data and stacks, and checks that nothing is left.
    After a failure, the next call goes on.
    """
    from covalent_cirro.aws.clients import Clients
    from covalent_cirro.covalent_server import config
    from covalent_cirro.deployment import holdings, teardown

    client = Clients(target.access)
    found = holdings.survey(client, target.stack_name, keep_data=keep_data)
    where = account.in_words(client, target.local_stack, target.access.profile)
    if not as_json:
        _show_holdings(found, where)
    if not found.is_nothing and not yes:
        _ask(found, where, as_json)
    with render.steps(quiet=as_json) as say:
        proof = teardown.destroy(client, found, say=say, on_event=None if as_json else show_event(target.stack_name))
    forgotten = [] if proof.left else config.forget(target.stack_name)
    if as_json:
        render.document({**_document(found, proof, forgotten), "account": account.account_id(client)})
    else:
        _show_proof(found, where, proof, forgotten, config.config_path())
    if proof.left:
        sys.exit(1)


def _ask(found: Holdings, where: str, as_json: bool) -> None:
    if as_json or not render.interactive():
        raise click.UsageError("without a terminal nobody can be asked: give --yes. Nothing was deleted.")
    if found.loses_data:
        question = f"It is deleted from {where}. There is no way back. Type the deployment's name ({found.name})"
        sure = render.confirm_by_typing(question, found.name)
    else:
        sure = render.confirm(f"Delete all of this from {where}?")
    if not sure:
        raise Declined("nothing was deleted: you said no.")


def _show_holdings(found: Holdings, where: str) -> None:
    if found.is_nothing:
        render.line(f"There is no deployment {found.name!r} in {where}.")
        return
    render.line(f"What will be deleted of the deployment {found.name!r} of {where}:")
    states = Counter(job.state for job in found.jobs)
    rows = [
        ("stacks", ", ".join(stack.name for stack in found.stacks) or "none"),
        (
            "jobs",
            f"{counted(states)} are terminated" if states else "none",
        ),
        *(("bucket", f"{each.name}: {_much(each, 'objects')}") for each in found.buckets),
        *(("images", f"{each.name}: {_much(each, 'images')}") for each in found.repositories),
        *(("log group", each) for each in found.of_type("AWS::Logs::LogGroup")),
        *(("file system", f"{each}: stays, with what is in it") for each in found.file_systems),
        ("job definitions", f"{len(found.definitions)} that executors registered"),
    ]
    render.facts(rows)
    if found.keep_data and found.kept:
        render.line("Bucket, images and logs are kept, and cost what is stored.")


def _much(contents: Any, what: str) -> str:
    return f"{'' if contents.is_all else 'more than '}{contents.entries:,} {what}, {size(contents.size_bytes)}"


def _show_proof(found: Holdings, where: str, proof: Proof, forgotten: list[str], path: Path) -> None:
    from covalent_cirro.deployment import leftovers

    if forgotten:
        render.line(f"Taken out of {path}: {', '.join(forgotten)}")
    for reason in proof.not_asked:
        render.warning(f"could not be looked at: {reason}")
    if proof.left:
        lines = [f"of the deployment {found.name!r} this is left:"]
        for each in proof.left:
            lines += [f"  {each}", f"    {leftovers.command(each, found.region) or 'delete it in the AWS console'}"]
        lines.append("Delete it so, or `cirro destroy` again; what is only still on its way out is gone then.")
        render.failure("\n".join(lines))
    elif found.keep_data and found.kept:
        render.done(f"nothing of the deployment {found.name!r} is left but its data: {', '.join(found.kept)}")
    else:
        several = "s" if len(found.file_systems) > 1 else ""
        but = f", but its file system{several}" if found.file_systems else ""
        render.done(f"nothing of the deployment {found.name!r} is left in {where}{but}")
    for each in found.file_systems:
        command = f"aws efs delete-file-system --file-system-id {each} --region {found.region}"
        render.line(f"The file system {each} costs what is stored, until it is deleted: {command}")


def _document(found: Holdings, proof: Proof, forgotten: list[str]) -> dict[str, Any]:
    return {
        "name": found.name,
        "region": found.region,
        "deleted": {
            "stacks": [stack.name for stack in found.stacks],
            "jobs": [job.job_id for job in found.jobs],
            "buckets": [each._asdict() for each in found.buckets],
            "repositories": [each._asdict() for each in found.repositories],
            "job_definitions": list(found.definitions),
        },
        "kept": list(found.kept),
        "left": list(proof.left),
        "not_asked": list(proof.not_asked),
        "forgotten_settings": forgotten,
    }
