"""Puts events of AWS Batch on the default event bus of moto's EventBridge."""

from __future__ import annotations

import sys
from typing import Any

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.moto_internals.loading import IMPORTING, once, replace


def wants_events() -> bool:
    """Whether EventBridge was ever called in this process: otherwise no rule can exist."""
    return "moto.events.models" in sys.modules


def put_event(account: str, region: str, detail_type: str, resources: list[str], detail: str) -> None:
    """Put an event of source ``aws.batch`` on the default bus."""
    with IMPORTING:
        from moto.events.models import events_backends
    install()
    backend = events_backends[account][region]
    if backend.event_buses["default"].rules:
        event = {"Source": "aws.batch", "DetailType": detail_type, "Resources": resources, "Detail": detail}
        backend.put_events([event])


@once
def install() -> None:
    """Give events the account, which moto leaves out (EventBridge Reference, event structure)."""
    from moto.events.utils import EventTemplateParser

    parse: Any = EventTemplateParser.parse

    def parse_with_account(input_template: str | None, input_paths_map: Json, event: Any) -> Any:
        made = parse(input_template, input_paths_map, event)
        if not input_template:
            made["account"] = event["account"]
        return made

    replace(EventTemplateParser, "parse", staticmethod(parse_with_account))
