"""Real jobs on an emulated account, and a terminal whose Covalent config names it. No Covalent server runs."""

from __future__ import annotations

import asyncio
import json
import platform
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import pytest
from click.testing import Result

from covalent_cirro import CirroBatchExecutor
from covalent_cirro.covalent_server.assets import Group, Node
from covalent_cirro.electron import without_server
from covalent_cirro.electron.call_writer import ElectronSpec, prepare_call, store_call
from covalent_cirro.electron.engine.definitions import everything
from covalent_cirro.electron.send import engine_for
from covalent_cirro.jobs.image_rules import Pickled
from tests.plugin.conftest import Account, account, executor

__all__ = ["account", "executor"]

DEADLINE_S = 120.0


async def no_image() -> str:
    """Of jobs that run as processes."""
    return ""


Make = Callable[..., CirroBatchExecutor]


def poll(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """The condition's first true value; fails after the deadline."""
    begun = time.monotonic()
    while (waited_s := time.monotonic() - begun) < DEADLINE_S:
        value = condition()
        if value:
            return value
        # Each look is a call or more: what is waited for longer is looked at less often.
        time.sleep(min(0.2, max(0.02, waited_s / 5)))
    raise AssertionError(f"{what} did not come true within {DEADLINE_S:g} s")


class Sent(NamedTuple):
    """An electron that was sent off."""

    dispatch_id: str
    node_id: int
    job_id: str

    @property
    def name(self) -> str:
        """As the commands take it, with the dispatch's id cut short."""
        return f"{self.dispatch_id[:13]}:{self.node_id}"


class Lab:
    """Sends electrons, and looks at their jobs past all that is tested."""

    def __init__(self, account: Account, make: Make) -> None:
        self.account = account
        self.batch = account.client("batch")
        self.faults = account.emulator.faults
        self._make = make
        self._sent: list[str] = []

    def send(
        self,
        function: Callable[..., Any],
        *args: Any,
        dispatch_id: str | None = None,
        node_id: int = 0,
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Sent:
        """Submit an electron, and do not wait for it."""
        place = {"dispatch_id": dispatch_id or str(uuid.uuid4()), "node_id": node_id}

        async def submit() -> str:
            made = self._make(**options)
            await made._upload_task(function, list(args), dict(kwargs or {}), place)
            return str(await made.submit_task(place, {}))

        job_id = asyncio.run(submit())
        self._sent.append(job_id)
        return Sent(place["dispatch_id"], node_id, job_id)

    def send_group(self, *functions: Callable[..., Any]) -> Sent:
        """Submit one job for several electrons without arguments, as Covalent's task packing does."""
        place = {"dispatch_id": str(uuid.uuid4()), "node_id": 0}

        async def submit() -> str:
            made = self._make()
            nodes = {}
            async with engine_for(made.settings) as engine:
                with tempfile.TemporaryDirectory() as folder:
                    for node_id, function in enumerate(functions):
                        (Path(folder) / str(node_id)).mkdir()
                        (path,) = without_server._pickle(f"{folder}/{node_id}", function, [])
                        nodes[node_id] = Node(0, node_id, function.__name__, {"function": path})
                    group = Group(nodes=nodes, inputs={}, lattice="", python="", covalent="")
                    pickled = Pickled(platform.python_version(), cloudpickle.__version__)
                    written = await prepare_call(
                        engine.store,
                        made.settings,
                        place["dispatch_id"],
                        group,
                        [ElectronSpec(node_id, [], {}) for node_id in nodes],
                        pickled,
                        covalent="0.240.0",
                        allowed=everything,
                        image=no_image,
                    )
                    await store_call(engine.store, written, everything)
            return str(await made.submit_task(place, {}))

        job_id = asyncio.run(submit())
        self._sent.append(job_id)
        return Sent(place["dispatch_id"], 0, job_id)

    def upload(self, function: Callable[..., Any], *args: Any, node_id: int = 0) -> str:
        """Store an electron's call without submitting it; gives the dispatch."""
        place = {"dispatch_id": str(uuid.uuid4()), "node_id": node_id}
        asyncio.run(self._make()._upload_task(function, list(args), {}, place))
        return str(place["dispatch_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        """What DescribeJobs says of it."""
        (found,) = self.batch.describe_jobs(jobs=[job_id])["jobs"]
        return dict(found)

    def reach(self, sent: Sent | str, *states: str) -> dict[str, Any]:
        """The job once it is in one of the states."""
        job_id = sent if isinstance(sent, str) else sent.job_id
        found = poll(lambda: (job := self.job(job_id))["status"] in states and job, f"{job_id} in {states}")
        return dict(found)

    def done(self, sent: Sent | str) -> dict[str, Any]:
        """The job once it has ended."""
        return self.reach(sent, "SUCCEEDED", "FAILED")

    def forget(self, sent: Sent) -> None:
        """AWS Batch forgets the job, as it does days after its end."""
        batch = self.account.emulator.batch(self.account.emulator.region)
        with batch.lock:
            del batch.scheduler.jobs[sent.job_id]

    def others(self, name: str = "others") -> str:
        """A job of somebody else in the same queue, that runs on; gives its id."""
        needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "128"}]
        self.batch.register_job_definition(
            jobDefinitionName="others",
            type="container",
            containerProperties={"image": "x", "command": ["sleep", "600"], "resourceRequirements": needs},
        )
        job_id = self.batch.submit_job(
            jobName=name,
            jobQueue=self.account.settings["batch_queue"],
            jobDefinition="others",
            tags={"whose": "others"},
        )["jobId"]
        self._sent.append(job_id)
        return str(job_id)

    def clear(self) -> None:
        """End what still runs."""
        self.faults.clear()
        for job_id in self._sent:
            self.batch.terminate_job(jobId=job_id, reason="the test is over")
        poll(lambda: all(job["status"] in ("SUCCEEDED", "FAILED") for job in self._described()), "all have ended")

    def _described(self) -> list[dict[str, Any]]:
        chunks = [self._sent[begin : begin + 100] for begin in range(0, len(self._sent), 100)]
        return [job for chunk in chunks for job in self.batch.describe_jobs(jobs=chunk)["jobs"]]


@pytest.fixture
def terminal(account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This process's Covalent config says where electrons are sent; gives its folder."""
    folder = tmp_path / "covalent"
    folder.mkdir()
    settings = {
        **account.settings,
        "endpoint_url": account.emulator.endpoint_url,
        "credentials": account.credentials,
        "profile": "emulated",
        "region": account.emulator.region,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    (folder / "covalent.conf").write_text("\n".join(["[executors.cirro]", *lines, ""]))
    monkeypatch.setenv("COVALENT_CONFIG_DIR", str(folder))
    return folder


@pytest.fixture
def lab(account: Account, executor: Make, terminal: Path) -> Iterator[Lab]:
    """Sends electrons; what a test leaves running is ended after it."""
    made = Lab(account, executor)
    yield made
    made.clear()


@pytest.fixture
def document(cirro: Callable[..., Result]) -> Callable[..., Any]:
    """Calls ``cirro ... --json``, which must succeed, and gives the document."""

    def call(*arguments: object) -> Any:
        result = cirro(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return call
