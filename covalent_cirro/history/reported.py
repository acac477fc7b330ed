"""What electrons have reported (`covalent_cirro.trial`), from one listing, whatever the number of electrons."""

from __future__ import annotations

from covalent_cirro.contract import reports
from covalent_cirro.contract.reports import Curve, Point
from covalent_cirro.history.account import Account


def of_dispatch(account: Account, lattice: str, dispatch_id: str) -> list[Curve]:
    """What the electrons of a dispatch have reported.

    Args:
        account: The account.
        lattice: Name of the lattice, or the tag of its jobs; empty for a lattice without a name.
        dispatch_id: The whole id.
    """
    return _listed(account, reports.base(account.settings.key_prefix, lattice or "-", dispatch_id))


def of_electron(account: Account, lattice: str, dispatch_id: str, node_id: int) -> tuple[Point, ...]:
    """What an electron has reported, in the order of items and steps; arguments as of `of_dispatch`."""
    curves = _listed(account, reports.base(account.settings.key_prefix, lattice or "-", dispatch_id, node_id))
    return curves[0].points if curves else ()


def of_lattices(account: Account, beginning: str, first: str) -> list[Curve]:
    """What the electrons of lattices have reported whose names begin alike.

    Args:
        account: The account.
        beginning: What their names begin with.
        first: Lattices whose names come before this one are left out, and are not listed.
    """
    prefix = account.settings.key_prefix
    return _listed(
        account, reports.base(prefix) + reports.folded(beginning), reports.base(prefix, first).removesuffix("/")
    )


def _listed(account: Account, prefix: str, after: str = "") -> list[Curve]:
    bucket, given = account.settings.s3_bucket_name, {"StartAfter": after} if after else {}

    def listing() -> list[str]:
        pages = account.clients("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **given)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    return reports.curves(account.ask("s3:ListBucket", listing, bucket), account.settings.key_prefix)
