"""``cirro estimate``: what electrons will cost, before they are submitted. Shows what `history.report` computes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from covalent_cirro.cli import render
from covalent_cirro.cli.options import Target, json_option, target_options
from covalent_cirro.jobs.formatting import duration, usd
from covalent_cirro.settings.constants import PLATFORMS

if TYPE_CHECKING:
    from covalent_cirro.aws.prices import Price
    from covalent_cirro.history.report.costs import Estimate, Offer
    from covalent_cirro.jobs.machines import Need

FITS_NOWHERE = 1
"""Exit code where no instance of the queue is large enough."""


@click.command(epilog="Exit codes: 0 done; 1 the electron fits on no instance of its queue, or AWS refused an answer.")
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), required=True, help="Minutes that each electron runs."
)
@click.option("--electrons", type=click.IntRange(min=1), default=1, show_default=True, help="How many electrons.")
@click.option("--platform", type=click.Choice(PLATFORMS), help="What each runs on. Unset: as in the config.")
@click.option("--vcpu", type=click.FloatRange(min=0, min_open=True), help="vCPUs of each. Unset: as in the config.")
@click.option(
    "--memory", type=click.FloatRange(min=0, min_open=True), help="Memory of each in GB. Unset: as in the config."
)
@click.option("--num-gpus", type=click.IntRange(min=0), help="GPUs of each. Unset: as in the config.")
@click.option("--num-nodes", type=click.IntRange(min=1), help="Machines of each. Unset: as in the config.")
@json_option
@target_options
def estimate(
    minutes: float,
    electrons: int,
    platform: str | None,
    vcpu: float | None,
    memory: float | None,
    num_gpus: int | None,
    num_nodes: int | None,
    target: Target,
    as_json: bool,
) -> None:
    """Estimate what electrons will cost, before they are submitted.

    The cost of an electron is its share of an instance, times the price of an hour now, times how long it runs. It is
    shown for the cheapest and for the most expensive instance type that AWS Batch is likely to start. Nothing is
    submitted.
    """
    from covalent_cirro.history.account import open_account
    from covalent_cirro.history.report import costs
    from covalent_cirro.history.report.offers import fargate_offers, offers
    from covalent_cirro.jobs import fargate_texts
    from covalent_cirro.jobs.fargate_machines import FargateMachine
    from covalent_cirro.settings import resolve

    with open_account(target.access, target.stack_name) as account:
        asked = {"platform": platform, "vcpu": vcpu, "memory": memory, "num_gpus": num_gpus, "num_nodes": num_nodes}
        # Of the config, what is about the memory that it has itself does not hold for another one.
        section = {**dataclasses.asdict(account.settings), "memory_max": None, "shared_memory_gb": None}
        account.settings = settings = resolve(asked, section)
        need, notes = costs.need_of(settings), []
        if settings.on_fargate:
            machine = FargateMachine(settings.size, settings.architecture)
            found = costs.estimate_on_fargate(
                machine, minutes * 60, fargate_offers(account, machine), electrons=electrons
            )
            notes = [text] if (text := fargate_texts.raised(settings)) else []
        else:
            offered, notes = offers(account)
            found = costs.estimate(need, minutes * 60, offered, electrons=electrons, nodes=settings.nodes)
    not_in_it = costs.not_in_estimate(settings)
    if as_json:
        render.document(_document(need, found, notes, not_in_it))
    elif found is not None:
        _show(need, found, not_in_it)
    if not as_json:
        for note in notes:
            render.line(note)
    if found is None:
        render.failure(f"an electron with {need} fits on no instance of its queue; `cirro doctor` shows why")
        raise SystemExit(FITS_NOWHERE)


def _show(need: Need, found: Estimate, not_in_it: tuple[str, ...]) -> None:
    of = f"{found.nodes} nodes with {need}" if found.nodes > 1 else str(need)
    rows = [
        ("electrons", f"{found.electrons} of {duration(found.run_s)}, each {of}"),
        ("at least", f"{usd(found.least_usd)} on {_offer(found.least)}"),
        ("at most", f"{usd(found.most_usd)} on {_offer(found.most)}"),
        ("not in it", "; ".join((*not_in_it, "attempts that are lost"))),
    ]
    render.facts(rows)


def _offer(offer: Offer) -> str:
    price: Price = offer.price
    return f"{offer.kind.name} {price.market}, {usd(price.usd_per_hour)} an hour on {price.date} ({price.source})"


def _document(need: Need, found: Estimate | None, notes: list[str], not_in_it: tuple[str, ...]) -> dict[str, object]:
    def offer(of: Offer) -> dict[str, object]:
        return {"instance_type": of.kind.name, **of.price._asdict()}

    estimated = None
    if found is not None:
        estimated = {
            **{"currency": "USD", "least_usd": found.least_usd, "most_usd": found.most_usd},
            **{"least": offer(found.least), "most": offer(found.most)},
            **{
                "electrons": found.electrons,
                "nodes": found.nodes,
                "run_s": found.run_s,
                "not_included": list(not_in_it),
            },
        }
    return {"asked": need._asdict(), "estimate": estimated, "notes": notes}
