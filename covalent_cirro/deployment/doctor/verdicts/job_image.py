"""Findings about the image of the jobs, by the rules for a submission (`image_rules`). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from covalent_cirro.jobs import image_rules
from covalent_cirro.jobs.findings import FAILURE, OK, WARNING, Finding
from covalent_cirro.jobs.image_rules import ImageFacts, MissingImage, Pickled

MAKE = "`cirro image push` builds an image that is right, pushes it and sets container_image_uri."


def unknown(uri: str, *, emulated: bool) -> Finding:
    """An image that ECR does not know: the stock plugin's default, or an image in another registry.

    Args:
        uri: URI of the image.
        emulated: Whether the AWS is an emulated one.
    """
    reason = image_rules.refused_by_name(uri)
    if reason is not None:
        return Finding("image", uri, FAILURE, reason, MAKE)
    if emulated and "/" not in uri:  # no registry has it: it is the name of nothing, or an image of this machine
        seen = (
            "not looked at: jobs of an emulated AWS that are processes need none; with --docker the engine must have it"
        )
        return Finding("image", uri, OK, seen)
    return Finding(
        "image",
        uri,
        WARNING,
        "not in a private ECR registry, so nothing of it was looked at",
        f"See that the instances can pull it, and that it has covalent-cirro's runner. Or: {MAKE}",
    )


def image(
    uri: str,
    found: ImageFacts | MissingImage | None,
    pickled: Pickled,
    runner: str | None,
    architecture: str = image_rules.ARCHITECTURE,
    options: Sequence[str] = (),
) -> Finding:
    """Whether an image can run electrons that are dispatched from this Python.

    Args:
        uri: URI of the image.
        found: Facts of the image; `None` where its configuration cannot be parsed.
        pickled: Versions of Python and cloudpickle here.
        runner: Version of covalent-cirro here.
        architecture: Architecture of the machines, one of `image_rules.ARCHITECTURES`.
        options: `Settings.runner_options` of the config.
    """
    if found is None:
        return Finding("image", uri, FAILURE, "what ECR has there is no image of programs", MAKE)
    reason = image_rules.why_not(uri, found, pickled, architecture, options)
    if reason is not None or isinstance(found, MissingImage):
        return Finding("image", uri, FAILURE, reason or "it does not exist", MAKE)
    if not found.python:
        return Finding(
            "image", uri, WARNING, f"for {found.architecture}; it has no labels that tell its versions", MAKE
        )
    seen = f"for {found.architecture}, Python {found.python}, cloudpickle {found.cloudpickle}"
    if runner is not None and found.runner != runner:
        return Finding(
            "image", uri, WARNING, f"{seen}, but covalent-cirro {found.runner or 'unknown'}; here it is {runner}", MAKE
        )
    return Finding("image", uri, OK, f"{seen}, covalent-cirro {found.runner}")
