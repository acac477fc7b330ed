"""``cirro models``: lists the models of a deployment and their versions, and makes another version the current one.

Shows what `models.model_registry` reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from covalent_cirro.cli import render
from covalent_cirro.cli.options import Target, json_option, target_options
from covalent_cirro.errors import ModelError
from covalent_cirro.jobs.formatting import size

if TYPE_CHECKING:
    from covalent_cirro.models.model_registry import ModelRegistry
    from covalent_cirro.models.model_version import ModelVersion


@click.command()
@click.argument("name", required=False)
@click.option("--point", metavar="VERSION", help="Make this version of NAME the current one.")
@json_option
@target_options
def models(target: Target, name: str | None, point: str | None, as_json: bool) -> None:
    """List the models of a deployment; with NAME, the versions of one.

    A version is what `covalent_cirro.models.register` put into the bucket: weights, and what made them. The current
    one is that of the last registration, or of --point. A service that runs keeps the version that it was deployed
    with.

    \b
    cirro models                     the models, each with its current version
    cirro models recommender         its versions, the newest first
    cirro models recommender --point 20261130T081500Z-0a1b2c3d
    """
    if point is not None and name is None:
        raise click.UsageError("--point needs the model: cirro models NAME --point VERSION.")
    registry = _registry(target)
    if name is None:
        _show_models(registry, as_json)
    elif point is None:
        _show_versions(registry, name, as_json)
    else:
        _point(registry, name, point, as_json)


def _registry(target: Target) -> ModelRegistry:
    from covalent_cirro.history.account import open_account
    from covalent_cirro.models.model_registry import registry_of

    with open_account(target.access, target.stack_name) as account:
        return registry_of(account.access, account.settings)


def _show_models(registry: ModelRegistry, as_json: bool) -> None:
    found = []
    for name in registry.names():
        listing, version = registry.listing(name), registry.current_name(name)
        if listing.complete:
            found.append((name, listing, None if version is None else registry.version(name, version)))
    if as_json:
        documents = [
            {"name": name, "versions": len(listing.complete), "current": current and _document(current)}
            for name, listing, current in found
        ]
        render.document({"models": documents})
    elif not found:
        render.line("no model is registered here; covalent_cirro.models.register does it from Python")
    else:
        render.table(
            ("model", "versions", "current", "registered", "metrics"),
            (
                (name, str(len(listing.complete)), *(_row(current) if current else ("none", "", "")))
                for name, listing, current in found
            ),
        )


def _show_versions(registry: ModelRegistry, name: str, as_json: bool) -> None:
    found = registry.versions(name)
    if not found:
        raise ModelError(registry.what_there_is(name))
    current, unfinished = registry.current_name(name), registry.listing(name).unfinished
    if as_json:
        render.document(
            {
                "name": name,
                "current": current,
                "versions": [_document(each) for each in found],
                "unfinished": list(unfinished),
            }
        )
        return
    render.table(
        ("version", "", "registered", "size", "dispatch", "parameters", "metrics"),
        (
            (
                each.version,
                "current" if each.version == current else "",
                _moment(each),
                size(sum(file.size for file in each.files.values())),
                each.dispatch[:8] if each.dispatch else "",
                _facts(each.parameters),
                _facts(each.metrics),
            )
            for each in found
        ),
    )
    if unfinished:
        render.note(
            f"not complete, and not listed: {', '.join(unfinished)}. Somebody registers now, or was stopped while "
            "registering; then an administrator can delete what is there."
        )


def _point(registry: ModelRegistry, name: str, version: str, as_json: bool) -> None:
    pointed = registry.point(name, version)
    if as_json:
        render.document({"name": name, "current": version, "uri": pointed.uri})
        return
    render.done(f"{version} is the current version of {name}")
    render.line("A service that runs keeps its version until it is deployed or updated again.")


def _row(version: ModelVersion) -> tuple[str, str, str]:
    return version.version, _moment(version), _facts(version.metrics)


def _moment(version: ModelVersion) -> str:
    return version.created.replace("T", " ").rstrip("Z")


def _facts(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items())


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _document(version: ModelVersion) -> dict[str, Any]:
    return {**version._asdict(), "files": {name: file._asdict() for name, file in version.files.items()}}
