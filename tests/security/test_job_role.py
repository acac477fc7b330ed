"""Keys that the job role may write, by the emulator's evaluator of policies and by moto's."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest
from moto.iam.access_control import IAMPolicy, PermissionResult

from covalent_cirro.contract import reports
from covalent_cirro.contract.chunk_records import ChunkName
from covalent_cirro.contract.log_parts import Part
from covalent_cirro.contract.places import blob_key, location
from covalent_cirro.contract.reports import Point
from covalent_cirro.local.emulator.iam import policies
from covalent_cirro.local.emulator.iam.policies import Access, Principal
from covalent_cirro.models import model_version
from tests.unit.template_facts import TEMPLATES

BUCKET = "bucket"
PREFIX = "cirro/"
CALL = location(BUCKET, PREFIX, "dispatch", 5, "018f5e2b7c00c0ffee01")

MAY_WRITE = {
    "its outcome": CALL.outcome_key,
    "an attempt's outcome": CALL.attempt_key("f" * 32, 2),
    "a part of its log": CALL.log_key(Part(1, "stdout", 0).name),
    "the index of a checkpoint": CALL.checkpoint_key(5, "index.json"),
    "a file of a checkpoint": CALL.checkpoint_key(5, "files/" + "0" * 32),
    "results so far": CALL.chunk_key(ChunkName(1, 0, 5, 0).name),
    "a child's outcome": CALL.child(3).outcome_key,
    "an attempt's outcome of a child": CALL.child(3).attempt_key("f" * 32, 2),
    "a part of a child's log": CALL.child(3).log_key(Part(1, "stdout", 0).name),
    "a child's results so far": CALL.child(3).chunk_key(ChunkName(1, 0, 5, 0).name),
    "the index of an item's checkpoint": CALL.item_checkpoint_key(5, 17, "index.json"),
    "what its electron reports": reports.base(PREFIX, "sweep", "dispatch", 5) + reports.name(1, 0, [Point(0, 0.5)]),
    "a blob": blob_key(PREFIX, "0" * 64),
}
MAY_NOT_WRITE = {
    "a call": CALL.call_key,
    "a call among the logs": f"{PREFIX}jobs/dispatch/5/log/call.json",
    "a call among the checkpoints": f"{PREFIX}jobs/dispatch/5/checkpoint/call.json",
    "a call among the results": f"{PREFIX}jobs/dispatch/5/items/call.json",
    "a call among the children": f"{PREFIX}jobs/dispatch/5/array/00003/call.json",
    "a call in the place of a child": f"{CALL.child(3).own_base}call.json",
    "a call of its own making": f"{PREFIX}jobs/dispatch/5/fffffffffffffffffff0/call.json",
    "earlier work": CALL.reused_key,
    "a call of a dispatch named log": f"{PREFIX}jobs/log/5/018f5e2b7c00c0ffee01/call.json",
    "what is not under the prefix": "other/jobs/d/5/018f5e2b7c00c0ffee01/outcome.json",
    "a call among what electrons report": f"{PREFIX}reports/jobs/dispatch/5/018f5e2b7c00c0ffee01/call.json",
    "what is not under jobs": f"{PREFIX}outcome.json",
    "a file of a model": model_version.file_key(PREFIX, "m", "20261130T081500Z-0a1b2c3d", "weights.safetensors"),
    "the current version of a model": model_version.pointer_key(PREFIX, "m"),
}


def document() -> str:
    """The role's policy as the template makes it, with references replaced."""
    (policy,) = TEMPLATES["roles"].properties("JobRole")["Policies"]
    text = json.dumps(policy["PolicyDocument"])
    for name, value in (("AWS::Partition", "aws"), ("S3BucketName", BUCKET), ("S3Prefix", PREFIX.rstrip("/"))):
        text = text.replace("${" + name + "}", value)

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return value["Fn::Sub"] if set(value) == {"Fn::Sub"} else {key: plain(each) for key, each in value.items()}
        return [plain(each) for each in value] if isinstance(value, list) else value

    return json.dumps(plain(json.loads(text)))


NEW = {"s3:if-none-match": ["*"], "s3:ObjectCreationOperation": ["true"]}
OVER = {"s3:ObjectCreationOperation": ["true"]}
PART = {"s3:ObjectCreationOperation": ["false"]}
"""What S3 says of a PutObject with If-None-Match, of one without, and of the UploadPart of a multipart upload."""


def ours(key: str, context: policies.Context = MappingProxyType(NEW)) -> bool:
    """The emulator's evaluator."""
    who = Principal("arn:aws:sts::123456789012:assumed-role/job/1", (), "123456789012", identity=(document(),))
    return policies.decide(who, Access("s3:PutObject", f"arn:aws:s3:::{BUCKET}/{key}", context)) is None


def motos(key: str) -> bool:
    """moto's, which ignores conditions."""
    decided = IAMPolicy(document()).is_action_permitted("s3:PutObject", f"arn:aws:s3:::{BUCKET}/{key}")
    return bool(decided == PermissionResult.PERMITTED)


@pytest.mark.parametrize("decides", [ours, motos])
@pytest.mark.parametrize("key", MAY_WRITE.values(), ids=MAY_WRITE)
def test_a_job_writes_what_is_a_jobs(decides: Any, key: str) -> None:
    """Outcome, log, checkpoint and blobs."""
    assert decides(key)


@pytest.mark.parametrize("decides", [ours, motos])
@pytest.mark.parametrize("key", MAY_NOT_WRITE.values(), ids=MAY_NOT_WRITE)
def test_a_job_writes_nothing_that_a_server_takes_for_its_own(decides: Any, key: str) -> None:
    """No call, wherever it lies, and no document about earlier work."""
    assert not decides(key)


def test_a_job_writes_over_no_blob() -> None:
    """It puts new ones, whole or in parts. Over outcomes nobody writes: that is the bucket's policy."""
    blob = MAY_WRITE["a blob"]
    assert ours(blob, NEW)
    assert ours(blob, PART)
    assert not ours(blob, OVER)
