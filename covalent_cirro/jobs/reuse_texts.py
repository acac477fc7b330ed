"""What users read about a reused electron. Pure."""

from __future__ import annotations

from covalent_cirro.contract.protocol import Location, ProtocolError, Reused, parse_call_uri

REUSED = "REUSED"
"""State of an electron that has the results of an earlier job, and no job of its own."""


def origin_text(reused: Reused) -> str:
    """Which job the results come from, in a few words."""
    try:
        origin = parse_call_uri(reused.origin)
    except ProtocolError:
        return f"reused from job {reused.job_id}"
    return f"reused from job {reused.job_id} of dispatch {origin.dispatch_id}, node {origin.node_id}"


def checked_origin(place: Location, reused: Reused) -> Location:
    """The origin that a ``reused.json`` names, which must be a call in the same bucket, under the same prefix.

    Raises:
        ProtocolError: The origin is in another bucket, or under another prefix.
    """
    origin = parse_call_uri(reused.origin)
    if (origin.bucket, origin.prefix) != (place.bucket, place.prefix):
        raise ProtocolError(f"reused.json names {reused.origin}, which is not in s3://{place.bucket}/{place.prefix}")
    return origin
