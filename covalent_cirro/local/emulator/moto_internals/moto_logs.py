"""Writes into CloudWatch Logs of moto: log streams of jobs. Gives CloudFormation the ARN that AWS has for a group."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.moto_internals.loading import once, preload, replace

DEFAULT_LOG_GROUP = "/aws/batch/job"
"""Where jobs without a ``logConfiguration`` log; Batch makes it (User Guide, Job states)."""

_logs = threading.Lock()


class NoSuchLogGroup(Exception):
    """The log group of a job does not exist."""


def open_log_stream(account: str, region: str, group: str, stream: str, *, create_group: bool) -> None:
    """Make a log stream.

    Raises:
        NoSuchLogGroup: The group does not exist, and is not to be made.
    """
    preload()
    from moto.logs.models import logs_backends

    backend = logs_backends[account][region]
    with _logs:
        if group not in backend.groups:
            if not create_group and group != DEFAULT_LOG_GROUP:
                raise NoSuchLogGroup(group)
            backend.ensure_log_group(group)
        backend.ensure_log_stream(group, stream)


def put_log_events(account: str, region: str, group: str, stream: str, events: list[Json]) -> None:
    """Append events (``timestamp`` in ms, ``message``). Does nothing where the group or the stream was deleted."""
    from moto.logs.exceptions import ResourceNotFoundException
    from moto.logs.models import logs_backends

    groups = logs_backends[account][region].groups
    with _logs, contextlib.suppress(KeyError, ResourceNotFoundException):
        groups[group].put_log_events(stream, events)


@once
def install() -> None:
    """End a group's attribute ``Arn`` with ``:*``, so that policies with it are about the group's streams.

    Source: CloudFormation, AWS::Logs::LogGroup, return values.
    """
    from moto.logs.models import LogGroup

    attribute: Any = LogGroup.get_cfn_attribute

    def get_cfn_attribute(self: Any, attribute_name: str) -> str:
        value = str(attribute(self, attribute_name))
        return f"{value}:*" if attribute_name == "Arn" else value

    replace(LogGroup, "get_cfn_attribute", get_cfn_attribute)
