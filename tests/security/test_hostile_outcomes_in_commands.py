"""What a job writes in its outcome, call or log ends no command: it is one row with a note, and others are as ever."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest
from click.testing import Result

from covalent_cirro.contract import limits
from covalent_cirro.contract.limits import MAX_DOCUMENT_BYTES
from covalent_cirro.contract.places import Location, location
from tests.cli.history.conftest import Lab, Sent

cloudpickle.register_pickle_by_value(sys.modules[__name__])

Cirro = Callable[..., Result]


def add(x: int, y: int) -> int:
    """An electron that returns."""
    print("adding")
    return x + y


class Kept:
    """What two electrons of one dispatch left, one of which is an attacker's."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.s3 = lab, lab.account.client("s3")
        self.bucket = lab.account.settings["s3_bucket_name"]
        self.good = lab.send(add, 1, 2, node_id=1)
        self.bad = lab.send(add, 3, 4, node_id=2, dispatch_id=self.good.dispatch_id)
        for each in (self.good, self.bad):
            lab.done(each)
        (key,) = [key for key in lab.account.keys() if key.endswith("outcome.json") and f"{self.of(self.bad)}" in key]
        self.place = Location(self.bucket, key.removesuffix("outcome.json"))
        self.outcome = self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        self.call = self.s3.get_object(Bucket=self.bucket, Key=self.place.call_key)["Body"].read()

    def of(self, sent: Sent) -> str:
        """What keys of an electron have in them."""
        return f"/{sent.dispatch_id}/{sent.node_id}/"

    def put(self, key: str, data: bytes) -> None:
        """Store an object in the place of what is there."""
        self.lab.account.replace(key, data)

    def change(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Store another outcome."""
        document = json.loads(self.outcome)
        change(document)
        self.put(self.place.outcome_key, json.dumps(document).encode())


@pytest.fixture
def kept(lab: Lab) -> Kept:
    """Two electrons that returned."""
    return Kept(lab)


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "400 digits": lambda outcome: outcome["usage"].update(wall_s=int("9" * 400)),
    "no number": lambda outcome: outcome["usage"].update(wall_s=float("nan"), peak_memory_bytes=-5),
    "times": lambda outcome: outcome["times"].update(started=1e300),
    "a million facts": lambda outcome: outcome["host"].update({str(i): "x" for i in range(300_000)}),
    "an attempt": lambda outcome: outcome.update(attempt=10**9),
    "parts": lambda outcome: outcome["results"][0]["stdout"].update(parts=["01/stdout.000000"] * 300),
    "another call": lambda outcome: outcome.update(call_id="x" * 100_000),
    "too large": lambda outcome: outcome.update(more="x" * limits.MAX_OUTCOME_BYTES),
}


def commands_work(cirro: Cirro, kept: Kept, note: str) -> None:
    """Every command tells of the good electron as ever, and of the bad one what is wrong."""
    dispatch = kept.good.dispatch_id
    for words in (("jobs",), ("jobs", "--all"), ("jobs", "--dispatch", dispatch)):
        result = cirro(*words, "--json")
        assert result.exit_code == 0, result.output
        rows = {row["node_id"]: row for row in json.loads(result.stdout)["jobs"] if row["dispatch_id"] == dispatch}
        assert (rows[1]["state"], rows[1]["why"]) == ("SUCCEEDED", "")
        assert rows[1]["used_bytes"] > 0
        assert note in rows[2]["why"]
        assert cirro(*words).exit_code == 0
    for words in (("show", kept.bad.name), ("logs", kept.bad.name), ("stop", kept.bad.name), ("logs", kept.good.name)):
        result = cirro(*words)
        assert result.exit_code == 0, result.output
        assert note in result.output or words[0] == "stop" or words[1] == kept.good.name
    report = cirro("report", dispatch, "--json")
    assert report.exit_code == 0, report.output
    assert any(note in each for each in json.loads(report.stdout)["notes"])
    assert [each["state"] for each in json.loads(report.stdout)["electrons"]] == ["SUCCEEDED", "SUCCEEDED"]


def test_a_hostile_outcome_is_one_row_with_a_note(kept: Kept, cirro: Cirro, lab: Lab) -> None:
    """Whatever it says; also once AWS Batch has forgotten the job, and S3 is all there is."""
    for name, change in HOSTILE.items():
        kept.change(change)
        result = cirro("jobs", "--dispatch", kept.good.dispatch_id, "--json")
        assert result.exit_code == 0, (name, result.output)
        assert "refused" in result.stdout, name
    kept.change(HOSTILE["400 digits"])
    commands_work(cirro, kept, "outcome.json.usage.wall_s is not a number")
    lab.forget(kept.bad)
    rows = json.loads(cirro("jobs", "--dispatch", kept.good.dispatch_id, "--json").stdout)["jobs"]
    assert "wall_s" in next(row["why"] for row in rows if row["node_id"] == 2)
    assert cirro("show", kept.bad.name).exit_code == 0


@pytest.mark.parametrize("data", [b"{}", b"x" * (MAX_DOCUMENT_BYTES + 1)], ids=["empty", "too large"])
def test_a_call_that_cannot_be_read_is_one_row_with_a_note(kept: Kept, cirro: Cirro, lab: Lab, data: bytes) -> None:
    """And so is what stands in its place where results are reused."""
    lab.forget(kept.bad)
    kept.put(kept.place.call_key, data)
    reused = location(kept.bucket, kept.place.prefix, kept.good.dispatch_id, 3, "0190000000001234abcd").reused_key
    kept.put(reused, data)
    result = cirro("jobs", "--dispatch", kept.good.dispatch_id, "--json")
    assert result.exit_code == 0, result.output
    rows = {row["node_id"]: row["why"] for row in json.loads(result.stdout)["jobs"]}
    assert rows[1] == ""
    assert "call.json" in rows[2]
    assert "reused.json" in rows[3]
    for words in (("show", kept.bad.name), ("logs", kept.bad.name), ("report", kept.good.dispatch_id, "--json")):
        assert cirro(*words).exit_code == 0


def shout() -> None:
    """Prints more than an outcome has room for."""
    for number in range(30_000):
        print(f"line {number}")


def test_what_is_put_beside_a_log_hides_nothing(lab: Lab, cirro: Cirro) -> None:
    """Objects with other names, one of an attempt that never was, and a part that is too large or not there."""
    sent = lab.send(shout)
    lab.done(sent)
    s3, bucket = lab.account.client("s3"), lab.account.settings["s3_bucket_name"]
    (part,) = [key for key in lab.account.keys() if f"/{sent.dispatch_id}/" in key and "/log/" in key]
    folder = part.partition("/log/")[0] + "/log/"
    for name in ("zz", "01/stdout.x", "999999999/stdout.000000", "01/stdout.000000/x"):
        s3.put_object(Bucket=bucket, Key=folder + name, Body=b"evil")
    whole = cirro("logs", sent.name)
    assert (whole.exit_code, whole.stdout.count("\n")) == (0, 30_000)
    assert "evil" not in whole.output
    s3.put_object(Bucket=bucket, Key=part, Body=bytes(limits.MAX_PART_BYTES + 1))
    larger = cirro("logs", sent.name)
    assert larger.exit_code == 0
    assert f"more than the {limits.MAX_PART_BYTES} that a well-formed one has" in larger.stderr
    assert larger.stdout.endswith("line 29999\n")
    s3.delete_object(Bucket=bucket, Key=part)
    gone = cirro("logs", sent.name)
    assert gone.exit_code == 0
    assert f"the part s3://{bucket}/{part} of this log is missing: there is no such object" in gone.stderr
    assert gone.stdout.endswith("line 29999\n")
