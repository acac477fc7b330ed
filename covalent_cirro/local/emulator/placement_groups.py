"""EC2's placement groups, which moto lacks: made by CloudFormation or a call, described by name, id and filter.

Instances of the emulated AWS stand nowhere, so that a group changes nothing for them.
"""

from __future__ import annotations

import fnmatch
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from covalent_cirro.local.emulator.formation.new_account import EC2_XMLNS
from covalent_cirro.local.emulator.http.answers import Answer, xml_answer

STRATEGIES = ("cluster", "partition", "spread")


class PlacementGroup(NamedTuple):
    """A placement group, with what of its description is set."""

    name: str
    id: str
    arn: str
    strategy: str
    partitions: str
    spread: str
    tags: Mapping[str, str]

    def values(self, filter_name: str) -> tuple[str, ...] | None:
        """What a filter of DescribePlacementGroups compares; `None`: there is no such filter."""
        if filter_name.startswith("tag:"):
            return tuple(value for key, value in self.tags.items() if key == filter_name[4:])
        known = {
            "group-name": (self.name,),
            "group-arn": (self.arn,),
            "state": ("available",),
            "strategy": (self.strategy,),
            "spread-level": (self.spread,),
            "tag-key": tuple(self.tags),
        }
        return known.get(filter_name)

    def xml(self) -> str:
        """Its description."""
        fields = {
            "groupName": self.name,
            "state": "available",
            "strategy": self.strategy,
            "partitionCount": self.partitions,
            "groupId": self.id,
            "groupArn": self.arn,
            "spreadLevel": self.spread,
        }
        tags = "".join(
            f"<item><key>{escape(key)}</key><value>{escape(value)}</value></item>" for key, value in self.tags.items()
        )
        told = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in fields.items() if value)
        return told + f"<tagSet>{tags}</tagSet>"


class PlacementGroups:
    """The placement groups of an account, by region.

    Args:
        account: Gives the account's number.
    """

    def __init__(self, account: Callable[[], str]) -> None:
        self._account = account
        self._groups: dict[tuple[str, str], PlacementGroup] = {}
        self._lock = threading.Lock()

    def create(self, region: str, body: bytes) -> Answer:
        """CreatePlacementGroup."""
        given = dict(parse_qsl(body.decode()))
        name, strategy = given.get("GroupName", ""), given.get("Strategy", "cluster")
        if not name:
            return _error("MissingParameter", "The request must contain the parameter GroupName")
        if strategy not in STRATEGIES:
            return _error("InvalidParameterValue", f"Value ({strategy}) for parameter strategy is invalid.")
        id = f"pg-{uuid.uuid4().hex[:17]}"
        made = PlacementGroup(
            name=name,
            id=id,
            arn=f"arn:aws:ec2:{region}:{self._account()}:placement-group/{name}",
            strategy=strategy,
            partitions=given.get("PartitionCount", "2" if strategy == "partition" else ""),
            spread=given.get("SpreadLevel", "rack" if strategy == "spread" else ""),
            tags=dict(_pairs(given, "TagSpecification.1.Tag", "Key", "Value")),
        )
        with self._lock:
            if (region, name) in self._groups:
                return _error("InvalidPlacementGroup.Duplicate", f"The placement group '{name}' already exists.")
            self._groups[region, name] = made
        return _answer("CreatePlacementGroup", f"<return>true</return><placementGroup>{made.xml()}</placementGroup>")

    def delete(self, region: str, body: bytes) -> Answer:
        """DeletePlacementGroup."""
        name = dict(parse_qsl(body.decode())).get("GroupName", "")
        with self._lock:
            if self._groups.pop((region, name), None) is None:
                return _unknown(name)
        return _answer("DeletePlacementGroup", "<return>true</return>")

    def describe(self, region: str, body: bytes) -> Answer:
        """DescribePlacementGroups."""
        given = dict(parse_qsl(body.decode()))
        with self._lock:
            found = [group for (where, _), group in self._groups.items() if where == region]
        for prefix, attribute in (("GroupName.", "name"), ("GroupId.", "id")):
            wanted = [value for key, value in given.items() if key.startswith(prefix)]
            there = {getattr(group, attribute) for group in found}
            unknown = [each for each in wanted if each not in there]
            if unknown:
                return _unknown(unknown[0])
            found = [group for group in found if not wanted or getattr(group, attribute) in wanted]
        for number in range(1, 1 + sum(key.startswith("Filter.") and key.endswith(".Name") for key in given)):
            name = given.get(f"Filter.{number}.Name", "")
            patterns = [value for key, value in given.items() if key.startswith(f"Filter.{number}.Value.")]
            if _ANY.values(name) is None:
                return _error("InvalidParameterValue", f"The filter '{name}' is invalid")
            found = [
                group
                for group in found
                if any(fnmatch.fnmatchcase(value, each) for value in group.values(name) or () for each in patterns)
            ]
        items = "".join(f"<item>{group.xml()}</item>" for group in found)
        return _answer("DescribePlacementGroups", f"<placementGroupSet>{items}</placementGroupSet>")


_ANY = PlacementGroup("", "", "", "", "", "", {})


def _pairs(given: Mapping[str, str], prefix: str, key: str, value: str) -> list[tuple[str, str]]:
    numbers = [name.split(".")[-2] for name in given if name.startswith(f"{prefix}.") and name.endswith(f".{key}")]
    return [(given[f"{prefix}.{each}.{key}"], given.get(f"{prefix}.{each}.{value}", "")) for each in numbers]


def _answer(operation: str, inner: str) -> Answer:
    told = f"<requestId>{uuid.uuid4()}</requestId>{inner}"
    return xml_answer(f'<{operation}Response xmlns="{EC2_XMLNS}">{told}</{operation}Response>')


def _unknown(name: str) -> Answer:
    return _error("InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown.")


def _error(code: str, text: str) -> Answer:
    inner = f"<Errors><Error><Code>{code}</Code><Message>{escape(text)}</Message></Error></Errors>"
    return xml_answer(f"<Response>{inner}<RequestID>{uuid.uuid4()}</RequestID></Response>", 400)
