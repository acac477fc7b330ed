"""Results of an earlier dispatch, taken by another run of the same script: which, from where, and which never."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from covalent._shared_files import TaskCancelledError

from covalent_cirro import CirroBatchExecutor
from covalent_cirro.aws import image_labels
from covalent_cirro.contract.documents import parse_call
from covalent_cirro.contract.places import parse_call_uri
from covalent_cirro.electron import poll
from covalent_cirro.electron.handover import ReusedResults
from covalent_cirro.electron.reuse import earlier
from covalent_cirro.errors import OutcomeError, SettingsError
from tests.access import control
from tests.plugin.conftest import PROFILE, Account
from tests.plugin.dispatches import Dispatch, Ended, client, finish, keep
from tests.pushed_images import Pushes

Make = Callable[..., CirroBatchExecutor]

SCRIPT = """
import random
import covalent as ct

NAMES = {"alpha", "beta", "gamma", "delta"}

class Point:
    x = 1

@ct.electron
def load(seed):
    print("loading")
    return random.Random(seed).randbytes(200_000)

@ct.electron
def size(data, factor=1):
    return factor * len(data) + len(NAMES)

@ct.electron
def point(n):
    return Point()

@ct.electron
def helped(n):
    from lab import helpers
    return helpers.double(n)

@ct.electron
def fail(n):
    raise ValueError("no such luck")

@ct.lattice
def flow():
    fail(1)
    point(1)
    helped(4)
    return size(load(7), factor=2)
"""

EDITED = SCRIPT.replace("import random\n", "import random\n# A line more: all functions stand lower.\n").replace(
    "+ len(NAMES)", "+ len(NAMES) + 1"
)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The script, the same under another name, and edited; each as another process builds it."""
    folder = tmp_path_factory.mktemp("clients")
    made = []
    for seed, (name, script) in enumerate((("first", SCRIPT), ("again", SCRIPT), ("edited", EDITED))):
        file = folder / f"flow_{name}.py"
        file.write_text(script)
        made.append(client(file, "flow", folder / name, seed))
    for process in made:
        finish(process)
    return {name: folder / name for name in ("first", "again", "edited")}


@pytest.fixture(scope="module")
def first(account: Account, staged: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Dispatch:
    """The first dispatch, whole: one electron fails in it."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        made = Dispatch(staged["first"], folder, patch)
        executor = CirroBatchExecutor(
            **account.settings,
            endpoint_url=account.emulator.endpoint_url,
            credentials=account.credentials,
            profile=PROFILE,
            container_image_uri="cirro-runner",
            vcpu=1,
            memory=0.5,
            cache_dir=str(folder / "cache"),
        )
        asyncio.run(made.run(executor, "size", "point", "fail"))
    return made


@pytest.fixture
def dispatch(staged: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Dispatch]:
    """Makes a dispatch of what a client staged."""
    monkeypatch.setattr(earlier, "FRESH_S", 0.0)  # dispatches follow one another faster than a list grows old
    return lambda name: Dispatch(staged[name], tmp_path, monkeypatch)


class Counts:
    """Calls to the emulated AWS since the test began."""

    def __init__(self, account: Account) -> None:
        self._emulator = account.emulator
        self._before = self._now()

    def _now(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = control(self._emulator, "calls")
        return found

    def of(self, operation: str, what: str = "count") -> int:
        """How many of an operation, or the bytes that went in."""
        zero = {what: 0}
        return self._now().get(operation, zero)[what] - self._before.get(operation, zero)[what]


@pytest.fixture
def calls(account: Account, first: Any) -> Counts:
    """Counts from here on."""
    return Counts(account)


def reused(dispatch: Dispatch) -> dict[str, bool]:
    """Which electrons of a dispatch have no job of their own."""
    return {name: each.is_reused for name, each in dispatch.ended.items()}


def document_of(account: Account, ended: Ended) -> dict[str, Any]:
    """The ``reused.json`` of an electron."""
    place = parse_call_uri(ended.sent.call)
    found = account.client("s3").get_object(Bucket=place.bucket, Key=place.reused_key)
    return dict(json.loads(found["Body"].read()))


async def test_the_same_script_run_again_computes_nothing(
    executor: Make, dispatch: Any, first: Dispatch, calls: Counts, account: Account
) -> None:
    """Although another process pickled it all. Nothing is sent but the two documents that say so."""
    second = dispatch("again")
    taken = await second.run(executor(reuse_from=first.id, vcpu=2, memory=1), "size")
    assert reused(second) == {"load": True, "size": True}
    assert taken["size"].value == first.ended["size"].value == 400_004
    assert taken["load"].value == first.ended["load"].value
    assert taken["load"].received.completed
    assert calls.of("batch:SubmitJob") == calls.of("batch:RegisterJobDefinition") == 0
    assert calls.of("s3:PutObject") == 2
    assert calls.of("s3:PutObject", "bytes_in") < 10_000
    job_id = outcome_job(account, first.ended["size"])
    document = document_of(account, taken["size"])
    assert (document["origin"], document["job_id"]) == (first.ended["size"].sent.call, job_id)


def why_not(account: Account, ended: Ended) -> str:
    """What the call of an electron says of its reuse."""
    place = parse_call_uri(ended.sent.call)
    data = account.client("s3").get_object(Bucket=place.bucket, Key=place.call_key)["Body"].read()
    return parse_call(data).not_reused


def outcome_job(account: Account, ended: Ended) -> str:
    """The job that an electron had."""
    place = parse_call_uri(ended.sent.call)
    found = account.client("s3").get_object(Bucket=place.bucket, Key=place.outcome_key)
    return str(json.loads(found["Body"].read())["job_id"])


async def test_what_it_printed_and_where_it_is_from_are_shown(
    executor: Make, dispatch: Any, first: Dispatch, account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    """The job and the dispatch stand in the electron's panel and in the server's log; stdout is the job's."""
    caplog.set_level(logging.INFO)
    second = dispatch("again")
    taken = await second.run(executor(reuse_from=first.id), "load")
    told = f"reused from job {outcome_job(account, first.ended['load'])} of dispatch {first.id}, node "
    assert told in caplog.text
    assert Path(taken["load"].output).with_name("stdout").read_text() == "loading\n"
    deadline = time.monotonic() + 10
    while not second.panels and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    (lines,) = second.panels.values()
    assert lines["job"].startswith(told)
    assert lines["state"].startswith("REUSED")


async def test_an_edited_electron_is_computed_and_one_that_only_moved_is_not(
    executor: Make, dispatch: Any, first: Dispatch, calls: Counts, account: Account
) -> None:
    """Its input, the result of a reused electron, is not sent again."""
    edited = dispatch("edited")
    taken = await edited.run(executor(reuse_from=first.id), "size")
    assert reused(edited) == {"load": True, "size": False}
    assert taken["size"].value == first.ended["size"].value + 1
    assert calls.of("batch:SubmitJob") == 1
    assert calls.of("s3:PutObject", "bytes_in") < 100_000
    assert why_not(account, taken["size"]) == "its function changed, or what of its script it uses"


async def test_a_reuse_of_a_reuse_leads_to_the_job_that_did_the_work(
    executor: Make, dispatch: Any, first: Dispatch, account: Account, calls: Counts
) -> None:
    """However long the chain."""
    second, third = dispatch("again"), dispatch("first")
    await second.run(executor(reuse_from=first.id), "load")
    taken = await third.run(executor(reuse_from=second.id), "load")
    assert reused(third) == {"load": True}
    assert document_of(account, taken["load"])["origin"] == first.ended["load"].sent.call
    assert taken["load"].value == first.ended["load"].value
    assert calls.of("batch:SubmitJob") == 0


async def test_a_failure_is_never_reused(executor: Make, dispatch: Any, first: Dispatch, account: Account) -> None:
    """It may have been the machine's."""
    assert "no such luck" in first.ended["fail"].error
    second = dispatch("again")
    await second.run(executor(reuse_from=first.id), "fail")
    assert reused(second) == {"fail": False}
    assert why_not(account, second.ended["fail"]) == "no result to reuse in the earlier dispatch (it failed)"


async def test_objects_of_the_scripts_own_classes_are_made_again(
    executor: Make, dispatch: Any, first: Dispatch, caplog: pytest.LogCaptureFixture
) -> None:
    """To another run of the script they would be objects of another class: `isinstance` would say no."""
    caplog.set_level(logging.INFO)
    second = dispatch("again")
    await second.run(executor(reuse_from=first.id), "point")
    assert reused(second) == {"point": False}
    assert "a class that the script itself defines" in caplog.text


async def test_a_result_that_has_expired_is_computed_again(
    executor: Make, dispatch: Any, first: Dispatch, account: Account
) -> None:
    """Its outcome is still there, its blob is not."""
    s3, place = account.client("s3"), parse_call_uri(first.ended["load"].sent.call)
    outcome = json.loads(s3.get_object(Bucket=place.bucket, Key=place.outcome_key)["Body"].read())
    where = {"Bucket": place.bucket, "Key": place.blob_key(outcome["results"][0]["output"]["pickle"]["sha256"])}
    kept = s3.get_object(**where)["Body"].read()
    s3.delete_object(**where)
    second = dispatch("again")
    try:
        await second.run(executor(reuse_from=first.id), "load")
    finally:
        s3.put_object(**where, Body=kept)
    assert reused(second) == {"load": False}


async def test_another_image_computes_again(executor: Make, dispatch: Any, first: Dispatch, account: Account) -> None:
    """By its name, where ECR cannot tell more."""
    second = dispatch("again")
    await second.run(executor(reuse_from=first.id, container_image_uri="another-runner"), "load")
    assert reused(second) == {"load": False}
    assert why_not(account, second.ended["load"]) == "another image"


async def test_an_electron_that_the_earlier_dispatch_does_not_have_says_so(
    executor: Make, dispatch: Any, account: Account
) -> None:
    """It was added to the script."""
    one, two = dispatch("first"), dispatch("again")
    await one.run(executor(), "point")
    await two.run(executor(reuse_from=one.id), "load")
    assert why_not(account, two.ended["load"]) == "no electron of this name in the earlier dispatch"


async def test_a_package_is_the_same_if_the_modules_that_are_reached_are(
    executor: Make, dispatch: Any, account: Account, tmp_path: Path
) -> None:
    """Whatever their comments; and the module that changed is named."""
    lab = tmp_path / "lab"
    lab.mkdir()
    (lab / "__init__.py").touch()
    (lab / "helpers.py").write_text("def double(n):\n    return 2 * n\n")
    (lab / "plots.py").write_text("COLOR = 'red'\n")
    one, two, three = dispatch("first"), dispatch("again"), dispatch("again")
    await one.run(executor(local_packages=[str(lab)]), "helped")
    (lab / "helpers.py").write_text("# Twice as much.\ndef double(n):\n    return (2 * n)  # that\n")
    (lab / "plots.py").write_text("COLOR = 'blue'\n")
    await two.run(executor(local_packages=[str(lab)], reuse_from=one.id), "helped")
    assert reused(two) == {"helped": True}
    (lab / "helpers.py").write_text("def double(n):\n    return 3 * n\n")
    await three.run(executor(local_packages=[str(lab)], reuse_from=one.id), "helped")
    assert reused(three) == {"helped": False}
    assert three.ended["helped"].value == 12
    assert why_not(account, three.ended["helped"]) == "lab/helpers.py changed"


async def test_a_tag_that_names_another_image_by_now_computes_again(
    executor: Make, dispatch: Any, account: Account
) -> None:
    """An image is the same by its digest, not by its tag."""
    pushes = Pushes(account.emulator)
    repository = pushes.repository("moving")
    image = f"{urlsplit(account.emulator.endpoint_url).netloc}/{repository}:latest"
    pushes.image(repository, "latest", layers=(b"one",))
    one, two, three = dispatch("first"), dispatch("again"), dispatch("again")
    await one.run(executor(container_image_uri=image), "load")
    await two.run(executor(container_image_uri=image, reuse_from=one.id), "load")
    assert reused(two) == {"load": True}
    pushes.image(repository, "latest", layers=(b"two",))
    await asyncio.sleep(image_labels.REFUSED_FRESH_S)
    await three.run(executor(container_image_uri=image, reuse_from=one.id), "load")
    assert reused(three) == {"load": False}


async def test_a_wrong_dispatch_is_refused_before_anything_is_sent(
    executor: Make, dispatch: Any, first: Dispatch, calls: Counts
) -> None:
    """Its id is named, and what to give instead."""
    second = dispatch("again")
    with pytest.raises(SettingsError, match=r"reuse_from='no-such-dispatch'.*whole id of an earlier dispatch"):
        await second.run(executor(reuse_from="no-such-dispatch"), "load")
    assert calls.of("s3:PutObject") == calls.of("batch:SubmitJob") == 0


async def test_what_a_server_that_died_had_taken_is_taken(
    executor: Make, dispatch: Any, first: Dispatch, calls: Counts
) -> None:
    """The next server finds the document, and does not look for the work again."""
    second = dispatch("again")
    launch, sent = await second.send(executor(reuse_from=first.id), "load")
    launch.close()
    launch, again = await second.send(executor(reuse_from=first.id), "load", again=True)
    launch.close()
    assert again == sent
    assert calls.of("s3:PutObject") == 1
    assert (await second.receive(executor(), "load", again)).completed


async def test_a_cancel_wins_over_a_reuse(executor: Make, dispatch: Any, first: Dispatch) -> None:
    """What was asked to end has no result."""
    second, made = dispatch("again"), executor(reuse_from=first.id)
    launch, sent = await second.send(made, "load")
    launch.cancel()
    with pytest.raises(TaskCancelledError):
        await poll.poll(launch, made.settings, sent, keep)
    launch.close()


async def test_only_the_electrons_own_document_leads_elsewhere(
    executor: Make, dispatch: Any, first: Dispatch, account: Account
) -> None:
    """Anybody can send data to the server: it cannot name results of its choice."""
    second, made = dispatch("again"), executor(reuse_from=first.id)
    launch, sent = await second.send(made, "load")
    launch.close()
    with pytest.raises(OutcomeError, match="is not a call of dispatch"):
        await second.receive(made, "load", ReusedResults(first.ended["load"].sent.call))
    place = parse_call_uri(sent.call)
    with pytest.raises(OutcomeError, match="no results were taken"):
        await second.receive(made, "load", ReusedResults(place.sibling("018f5e2b7c00c0ffee01").call_uri))
    document = {
        **document_of(account, Ended(sent, None, "", "")),
        "origin": "s3://theirs/jobs/d/1/018f5e2b7c00c0ffee01/call.json",
    }
    account.client("s3").put_object(Bucket=place.bucket, Key=place.reused_key, Body=json.dumps(document).encode())
    with pytest.raises(OutcomeError, match=r"s3://theirs/jobs/d/1/018f5e2b7c00c0ffee01/call\.json, which is not in"):
        await second.receive(made, "load", sent)
