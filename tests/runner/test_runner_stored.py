"""Stored values in a job, with the real runner, where neither Covalent nor boto3 can be imported."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from covalent_cirro.contract import documents
from covalent_cirro.contract.failure_kinds import Kind
from covalent_cirro.contract.protocol import ExitCode
from covalent_cirro.contract.references import Blob, StoredInput
from covalent_cirro.contract.stored_references import StoredReference
from covalent_cirro.stored_values.handles import Stored
from tests.runner.conftest import BUCKET, Runs
from tests.runner.mapped_calls import child, make_task, values_of


def handle(runs: Runs, data: bytes, kind: str = "value", name: str = "", **lies: Any) -> tuple[Stored, StoredInput]:
    """Store bytes, and what handle and call have of them."""
    blob = runs.blob(data, **lies)
    return Stored(StoredReference(BUCKET, runs.prefix, kind, name, "thing, 1 MB", blob)), StoredInput(
        "thing, 1 MB", blob
    )


def gets(runs: Runs, blob: Blob) -> int:
    """How often the bytes of a blob were asked for, in whole or in part."""
    return sum(each.method == "GET" and blob.sha256 in each.path for each in runs.proxy.requests)


def test_a_value_is_fetched_once_for_all_arguments_and_electrons_of_a_job(runs: Runs) -> None:
    """Each has an object of its own."""
    value, stored = handle(runs, cloudpickle.dumps([1, 2, 3]))

    def change(one: list[int], two: list[int], more: dict[str, list[int]]) -> Any:
        one.append(4)
        return one, two, more["x"]

    tasks = [runs.task(change, value, value, {"x": value}, node_id=node_id) for node_id in (0, 1)]
    ran = runs(*tasks, stored=(stored,))
    assert [runs.value(ran, index) for index in (0, 1)] == [([1, 2, 3, 4], [1, 2, 3], [1, 2, 3])] * 2
    assert gets(runs, stored.blob) == 1


def test_a_process_that_the_electron_starts_can_ask_too(runs: Runs) -> None:
    """The handle may be in a file that it reads."""
    value, stored = handle(runs, cloudpickle.dumps("from a child"))
    pickled = cloudpickle.dumps(value)

    def start() -> str:
        import subprocess
        import sys

        code = f"import pickle; print(pickle.loads({pickled!r}))"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    assert runs.value(runs(runs.task(start), stored=(stored,))) == "from a child"


def test_what_is_not_there_fails_the_electron_as_a_missing_blob_does(runs: Runs) -> None:
    """AWS Batch may start another attempt."""
    value, stored = handle(runs, cloudpickle.dumps(1))
    runs.s3.delete_object(Bucket=BUCKET, Key=runs.location.blob_key(stored.blob.sha256))
    ran = runs(runs.task(len, value), stored=(stored,))
    assert (ran.code, ran.failure.kind) == (ExitCode.FETCH, Kind.FETCH)
    assert "the stored thing, 1 MB could not be fetched" in ran.failure.message
    assert "call stored() again" in ran.failure.message


def test_changed_bytes_are_refused(runs: Runs) -> None:
    """Nothing of them is unpickled."""
    value, stored = handle(runs, cloudpickle.dumps([1]))
    runs.put(runs.location.blob_key(stored.blob.sha256), cloudpickle.dumps([2]))
    ran = runs(runs.task(len, value), stored=(stored,))
    assert ran.failure.kind == Kind.FETCH
    assert "was changed in S3" in ran.failure.message


def test_what_the_call_does_not_name_is_not_fetched(runs: Runs) -> None:
    """Whether or not it names others."""
    value, _ = handle(runs, cloudpickle.dumps([1]))
    _, other = handle(runs, cloudpickle.dumps([2]))
    for stored in ((), (other,)):
        ran = runs(runs.task(len, value), stored=stored)
        assert ran.failure.kind == Kind.UNREADABLE
        assert "names no stored value" in ran.failure.message or "does not name the stored value" in ran.failure.message


def test_an_archive_cannot_write_outside_of_its_folder(runs: Runs, tmp_path: Path) -> None:
    """One that `stored` did not make."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo("../../outside")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    value, stored = handle(runs, file.getvalue(), "folder", "pictures")
    ran = runs(runs.task(os.path.exists, value), stored=(stored,))
    assert "no file inside it" in ran.failure.message


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_job_of_a_map_fetches_what_all_share_once_and_the_items_that_are_its_own(runs: Runs, parallel: int) -> None:
    """Whichever of its processes asks first."""
    shared, of_shared = handle(runs, cloudpickle.dumps([10]))
    items = [handle(runs, cloudpickle.dumps([number, parallel])) for number in range(4)]

    def add(x: list[int], data: list[int]) -> int:
        return x[0] + data[0]

    task = make_task(runs, add, {"x": [each for each, _ in items]}, jobs=2, parallel=parallel, kwargs={"data": shared})
    runs.make_call(task, stored=(of_shared, *(stored for _, stored in items)))
    runs.finish(runs.start({"AWS_BATCH_JOB_ARRAY_INDEX": "1", "AWS_BATCH_JOB_ID": "job-1:1"}))
    outcome = documents.parse_outcome(runs.get(child(runs, 1).outcome_key))
    assert values_of(runs, outcome.results[0].items) == [12, 13]
    assert [gets(runs, stored.blob) for stored in (of_shared, *(stored for _, stored in items))] == [1, 0, 0, 1, 1]
