"""The runner's parent process: fetches the call and its blobs, has the electrons run, and stores their results.

The electron waits for the imports at the top of this file and for no others: awscrt, which takes longer than all of
them, is imported while the electron runs, or when it is needed. A short job with a small result does not need it.

It never unpickles, and never puts a payload into a log line.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from covalent_cirro.contract import documents, limits, packed_variables, places, problems, protocol, reports
from covalent_cirro.contract.failure_kinds import RUN_AGAIN, Failure, Kind
from covalent_cirro.contract.protocol import Call, ExitCode, NodeResult, Outcome, Output, Task
from covalent_cirro.contract.references import Blob, Inline, Input, Ref
from covalent_cirro.runner import exits, requests, shown_texts, usage
from covalent_cirro.runner.process import ElectronProcess, listen_to_stops
from covalent_cirro.runner.pump import MEANWHILE_S, Pump
from covalent_cirro.runner.reporting import Reporting
from covalent_cirro.runner.s3 import answers, blob_transfer
from covalent_cirro.runner.s3.quick_requests import QuickRequests
from covalent_cirro.runner.times import times_of

if TYPE_CHECKING:
    from covalent_cirro.contract.maps import Mapped
    from covalent_cirro.runner.checkpoints.keeper import Checkpoint
    from covalent_cirro.runner.checkpoints.listener import CheckpointListener
    from covalent_cirro.runner.mapped_job import MappedJob
    from covalent_cirro.runner.s3.s3_client import Client, Pending
    from covalent_cirro.runner.stored_blobs import StoredBlobs
    from covalent_cirro.runner.team import Team

_STORE_MARGIN_S = 4.0
"""Seconds before SIGKILL that are reserved for the outcome: outputs that are not stored by then are abandoned."""

_CHECKPOINT_MARGIN_S = 6.0
"""Checkpoints are abandoned earlier, to leave time for logs and outcome."""

_STILL_THERE_S = 60.0
"""If the host still runs so long after the time of EC2's notice, EC2 did not take it: the runner stops waiting."""


class _Stop(BaseException):
    """SIGTERM arrived while the runner only waited."""


def supervise(process: ElectronProcess, argument: str, started: float, environ: Mapping[str, str] = os.environ) -> int:
    """Run the call that a job was given.

    Args:
        process: The electron's process, waiting for requests.
        argument: Argument of the job, from `places.call_argument`.
        started: Epoch seconds of the runner's start.
        environ: The environment.

    Returns:
        The exit code, one of `protocol.ExitCode`.
    """
    supervisor = Supervisor(process, started, environ)
    try:
        return supervisor.run(argument)
    finally:
        if process.ended is None:
            process.signal_group(signal.SIGKILL)
        supervisor.clean_up()


class Supervisor:
    """One run of the runner. Its methods are in the order in which they are called."""

    def __init__(self, process: ElectronProcess, started: float, environ: Mapping[str, str]) -> None:
        self._process = process
        self._environ = environ
        self._times = {"started": started}
        self._attempt = _whole(environ.get("AWS_BATCH_JOB_ATTEMPT"), 1)
        self._folder = ""
        self._sigterm_at: float | None = None
        self._interrupt = False  # whether SIGTERM interrupts at once
        self._not_stored = False
        self._prepared = False
        self._pump: Pump | None = None
        self._loaded: Client | None = None
        self._inlined = 0
        self._published: int | None = None
        self._mapped: Mapped | None = None
        self._items: MappedJob | None = None
        self._checkpoints: list[CheckpointListener] = []
        self._stored: StoredBlobs | None = None
        self._team: Team | None = None
        self._placement: dict[str, Any] | None = None
        self._died_rank: int | None = None
        listen_to_stops(self._on_sigterm)
        self._memory = usage.Memory({os.getpid(), process.pid, os.getppid()})

    def run(self, argument: str) -> int:
        """Run the call; returns the exit code."""
        if importlib.util.find_spec("awscrt") is None:
            # It is imported later, but without it no result could be stored.
            raise ModuleNotFoundError("No module named 'awscrt': the container's image needs it", name="awscrt")
        self._interrupt = True
        try:
            self._check_stop()
            where, self._mac_key = places.parse_call_argument(argument)
            index = self._environ.get("AWS_BATCH_JOB_ARRAY_INDEX", "")
            self._where = where.child(int(index)) if index.isdigit() else where
            node = self._environ.get("AWS_BATCH_JOB_NODE_INDEX", "")
            if node.isdigit() and node != self._environ.get("AWS_BATCH_JOB_MAIN_NODE_INDEX"):
                self._where = where.on_node(int(node), self._attempt)
            self._endpoint = answers.Endpoint(self._environ)
            call = self._read_call()
        except (answers.S3Error, problems.ProtocolError) as error:
            _say(f"cannot read the call: {error}")
            return ExitCode.BAD_CALL
        except _Stop:
            _say("stopped by SIGTERM before the call was read")
            return ExitCode.TERMINATED
        self._interrupt = False
        if self._published is not None:
            _say("an earlier attempt has published the outcome of this call; nothing to do")
            return self._published
        times = times_of(self._environ)
        mask = shown_texts.hide(packed_variables.secrets_in(self._environ))
        self._pump = pump = Pump(self._process, self._put_part, self._wait, self._attempt, times, _say, mask)
        if self._sigterm_at is not None:
            pump.terminate()
        try:
            results = self._run_call(call, pump)
        except _Stop:
            results = exits.all_failed(
                call.tasks, {task.node_id: exits.terminated(task.name, None) for task in call.tasks}, ""
            )
        except Exception as error:
            import traceback

            # A bug of the runner: its traceback goes to the log, and its message into the outcome.
            traceback.print_exc()
            broken = Failure(Kind.RUNNER, f"the runner broke: {type(error).__name__}: {error}", traceback.format_exc())
            results = exits.all_failed(call.tasks, {task.node_id: broken for task in call.tasks}, "")
        if self._team is not None:
            self._team.conclude(_failure_of(results), self._used())
        code = self._publish(call, self._with_items(results))
        if code == ExitCode.TERMINATED and self._team is not None and self._team.passes:
            return ExitCode.HOST_GOING
        goes_at = self._host_goes_at()
        if code != ExitCode.TERMINATED or goes_at is None:
            return code
        self._stay_until_the_host_goes(goes_at)
        return ExitCode.HOST_GOING

    # --- before the electrons ---

    def _read_call(self) -> Call:
        quick = self._quick = QuickRequests(self._endpoint, self._environ)

        def get(key: str) -> bytes | None:
            # Without s3:ListBucket, S3 answers 403 for an object that does not exist.
            with contextlib.suppress(answers.NotThere, answers.Refused):
                return self._read(quick, key)
            return None

        call = documents.parse_call(self._read(quick, self._where.call_key))
        if self._where.child_index is not None or any(task.mapped is not None for task in call.tasks):
            from covalent_cirro.runner import mapped_job

            self._mapped = mapped_job.mapped_of(call, self._where.child_index)
        if call.num_nodes > 1:
            self._team = self._make_team(call, get)
        if self._attempt > 1 and self._where.compute_node is None:
            from covalent_cirro.runner import publication

            self._published = publication.published(get, self._where, self._mac_key, self._attempt)
        return call

    def _make_team(self, call: Call, get: Callable[[str], bytes | None]) -> Team:
        from covalent_cirro.runner import team

        environ, where = self._environ, self._where
        there = environ.get("AWS_BATCH_JOB_NUM_NODES", "")
        if there != str(call.num_nodes):
            raise problems.ProtocolError(
                f"the call is for {call.num_nodes} nodes, and the job has {there or 'none'} (AWS_BATCH_JOB_NUM_NODES)"
            )
        key, wait_s = where.meeting_key(self._job_id().partition("#")[0], self._attempt), times_of(environ).nodes
        if where.compute_node is None:

            def store(document: bytes) -> None:
                self._wait(self._client.put(where.bucket, key, document))

            return team.MainNode(call.num_nodes, self._mac_key, store, wait_s, self._check_stop)
        address = environ.get("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS", "")
        find = functools.partial(get, key)
        return team.OtherNode(where.compute_node, self._mac_key, find, address, wait_s, self._check_stop)

    def _job_id(self) -> str:
        """AWS's id of the job; of the main node of a multi-node job, that of the whole job."""
        job_id = self._environ.get("AWS_BATCH_JOB_ID", "")
        return job_id if self._where.compute_node is not None else job_id.partition("#")[0]

    def _read(self, quick: QuickRequests, key: str) -> bytes:
        found = quick.get(self._where.bucket, key)
        return (self._wait(self._client.get(self._where.bucket, key)) if found is None else found).body

    @property
    def _client(self) -> Client:
        """The S3 client, made at its first use, which is after the fork: it starts threads."""
        return self._make_client()

    def _make_client(self) -> Client:
        if self._loaded is None:
            from covalent_cirro.runner.s3.s3_client import Client

            self._loaded = Client(self._endpoint, self._environ, self._memory.limit_bytes())
        return self._loaded

    def _run_call(self, call: Call, pump: Pump) -> tuple[NodeResult, ...]:
        hello = pump.wait_for("hello")
        if hello is None:
            self._check_stop()
            ended = pump.end()
            raise RuntimeError(f"the electron's process did not start: exit code {ended.exit_code} {ended.signal}")
        self._cloudpickle = hello["cloudpickle"]
        conflict = protocol.version_conflict(call, python_version(), self._cloudpickle)
        if not self._cloudpickle:
            conflict = f"the container has no cloudpickle: install cloudpickle=={call.cloudpickle} in the image"
        if conflict is not None:
            failure = Failure(Kind.VERSIONS, conflict)
            return exits.all_failed(call.tasks, {task.node_id: failure for task in call.tasks}, "")

        self._folder = _make_folder(self._environ)
        if self._mapped is not None:
            self._items = self._make_items(self._mapped)
        paths: dict[Input, str] = {}
        needed = requests.blobs_of(call)
        if needed or (self._items is not None and self._items.needs_client()):
            self._make_client()  # before SIGTERM may interrupt its import
            self._interrupt = True
        try:
            self._check_stop()
            paths = self._fetch(call, needed)
        except (blob_transfer.BlobError, answers.S3Error, OSError) as error:
            failure = Failure(Kind.FETCH, str(error))
            return exits.all_failed(call.tasks, {task.node_id: failure for task in call.tasks}, "")
        finally:
            self._interrupt = False
        self._times["fetched"] = time.time()
        self._check_stop()
        if call.stored:
            self._offer_stored(call)
        if call.processes:
            not_met = self._find_places(call)
            if not_met is not None:
                return exits.all_failed(call.tasks, {task.node_id: not_met for task in call.tasks}, "")
        return self._run_tasks(call, paths, pump)

    def _find_places(self, call: Call) -> Failure | None:
        """Meet the other nodes of the job, and say where the processes of this node stand; or why they did not meet."""
        from covalent_cirro.runner import team
        from covalent_cirro.runner.ranks import Placement

        meeting = team.Meeting("127.0.0.1", team.free_port())
        if self._team is not None:
            self._make_client()  # before SIGTERM may interrupt its import
            self._interrupt = True
            try:
                self._check_stop()
                meeting = self._team.meet()
            except team.NotMet as error:
                return error.failure
            finally:
                self._interrupt = False
        node = self._where.compute_node or 0
        self._placement = Placement(node, call.num_nodes, call.processes, *meeting)._asdict()
        return None

    def _offer_stored(self, call: Call) -> None:
        """Listen to requests for the stored values that the call names."""
        from covalent_cirro.runner.stored_blobs import StoredBlobs

        client, where = self._client, self._where

        def fetch(blob: Blob) -> str:
            return blob_transfer.fetch(client, where.bucket, where.prefix, [blob], self._folder, self._wait)[blob]

        self._stored = StoredBlobs(self._folder, call.stored, fetch)

    def _fetch(self, call: Call, needed: list[Blob]) -> dict[Input, str]:
        """Fetch what the electrons need; returns the paths of blobs and of joined lists."""
        paths: dict[Input, str] = {}
        if needed:
            where = self._where
            found = blob_transfer.fetch(self._client, where.bucket, where.prefix, needed, self._folder, self._wait)
            paths.update({ref: path for ref, path in found.items()})
        for number, joined in enumerate(requests.joined_of(call)):
            from covalent_cirro.runner import item_sources

            path = os.path.join(self._folder, f"joined-{number}.pickle")
            item_sources.join(joined, paths, path)
            paths[joined] = path
        if self._items is not None:
            self._items.fetch(self._loaded, self._wait)
        return paths

    def _make_items(self, mapped: Mapped) -> MappedJob:
        from covalent_cirro.runner.item_chunks import ChunkPlace, ItemChunks
        from covalent_cirro.runner.mapped_job import MappedJob

        first, stop = mapped.children[self._where.child_index or 0]
        place = ChunkPlace(self._where, first, stop, self._attempt, self._mac_key, self._folder)
        interval_s = times_of(self._environ).chunk_interval
        chunks = ItemChunks(place, lambda: self._client, interval_s, self._wait, self._items_stored, _say)
        quick = functools.partial(self._quick.get, self._where.bucket)
        return MappedJob(mapped, place, chunks, quick)

    def _items_stored(self, stop: int) -> None:
        """Results of all items before ``stop`` are in S3: their checkpoints are not needed any more."""
        assert self._mapped is not None
        index = self._mapped.place_of(stop)
        for checkpoint in self._checkpoints:
            checkpoint.remove_done(index)

    # --- the electrons ---

    def _run_tasks(self, call: Call, paths: dict[Input, str], pump: Pump) -> tuple[NodeResult, ...]:
        gpus: usage.GpuWatch | None = None
        results: list[NodeResult] = []
        outputs: dict[int, str] = {}
        raw: list[tuple[Task, dict[str, Any] | Failure, dict[str, protocol.Log]]] = []
        for task in call.tasks:
            pump.begin()
            answer: dict[str, Any] | Failure
            if any(isinstance(found, Failure) for _, found, _ in raw):
                answer = Failure(Kind.NOT_RUN, "an earlier electron of the same task group failed")
                raw.append((task, answer, pump.finish_logs()))
                continue
            control = os.path.join(self._folder, f"checkpoint-{task.node_id}")
            attempt = call.attempts_before + self._attempt
            request = requests.build(
                call, task, paths, outputs, self._folder, checkpoint=control, attempt=attempt, first=not raw
            )
            if self._items is not None:
                request["task"]["mapped"] = self._items.request()
            if self._placement is not None:
                request["task"]["placement"] = self._placement
            pump.send(request)
            if gpus is None:
                # The electron runs by now, and does not wait for this.
                self._host = usage.HostFacts(self._environ)
                gpus = usage.GpuWatch(self._environ)
            checkpoint = self._look_after_checkpoint(call, task, control, attempt)
            reporting = self._make_reporting(call, task, control, attempt)
            done = pump.wait_for("done", self._on_event, functools.partial(self._meanwhile, reporting, pump))
            if done is not None and "output" in done:
                answer = done["output"]
                outputs[task.node_id] = done["output"].get("pickle", "")
            elif done is not None:
                answer = self._hint_at_memory(Failure(**done["failure"]))
            else:
                answer = self._why_it_died(pump, task)
            if isinstance(answer, Failure) and checkpoint is not None and checkpoint.fetch_failed:
                # The electron did not cause this, whatever it raised: another attempt may succeed.
                answer = answer._replace(kind=Kind.FETCH, message=checkpoint.fetch_failed)
            if isinstance(answer, Failure) and self._stored is not None and self._stored.failed:
                answer = answer._replace(kind=Kind.FETCH, message=self._stored.failed)
            stopped = pump.terminating or (isinstance(answer, Failure) and self._left_its_host(answer))
            if isinstance(answer, Failure) and stopped and answer.kind != Kind.ITEMS:
                answer = exits.terminated(task.name, answer)
            if self._team is not None:
                answer = self._team.settle(answer, stopped=self._sigterm_at is not None)
            if task is call.tasks[-1] or isinstance(answer, Failure):
                self._times["ran"] = done["time"] if done is not None else time.time()
                self._ended = pump.end()
            reporting.finish()
            if checkpoint is not None:
                checkpoint.finish(succeeded=not isinstance(answer, Failure), orderly=done is not None)
            # No electron runs after the failed one: the end of its log explains the failure.
            tail_bytes = limits.LOG_TAIL_BYTES if isinstance(answer, Failure) else exits.tail_bytes(len(call.tasks))
            raw.append((task, answer, pump.finish_logs(tail_bytes)))
        self._gpus = () if gpus is None else gpus.finish()
        for task, answer, logs in raw:
            items = self._items
            found = self._result(task, answer, logs) if items is None else self._items_result(items, task, answer, logs)
            results.append(found)
        return tuple(results)

    def _meanwhile(self, reporting: Reporting, pump: Pump) -> float:
        """Begin with what an electron that runs for a while will need, send what it reports, and see other nodes."""
        if not self._prepared:
            self._prepared = True
            self._make_client()
            if self._items is not None:
                self._items.begin()
        if self._team is None:
            return reporting.look()
        if self._team.look():
            pump.terminate()
        return min(MEANWHILE_S, reporting.look())

    def _make_reporting(self, call: Call, task: Task, control: str, attempt: int) -> Reporting:
        where = self._where
        base = reports.base(where.prefix, call.lattice or "-", where.dispatch_id, task.node_id)

        def put(name: str) -> Pending:
            return self._client.put(where.bucket, base + name, b"")

        path = os.path.join(control, protocol.REPORTS_FILE)
        return Reporting(path, put, self._wait, attempt, times_of(self._environ).report_interval, _say)

    def _look_after_checkpoint(self, call: Call, task: Task, control: str, attempt: int) -> CheckpointListener | None:
        """Start the listener for the electron's requests about its checkpoint; `None` if it cannot be started."""
        from covalent_cirro.runner.checkpoints.listener import CheckpointListener, CheckpointPlace

        started = self._times["started"]
        # All tries have one checkpoint, under the first one's call; so have all nodes of a job.
        where = self._where.sibling(call.tried[0].call_id) if call.tried else self._where
        reads_only = where.compute_node is not None
        where = where._replace(compute_node=None)
        place = CheckpointPlace(control, where, task.node_id, self._job_id(), attempt, started, reads_only=reads_only)

        def make_checkpoint(place: CheckpointPlace, host_goes: Callable[[], None]) -> Checkpoint:
            from covalent_cirro.runner.checkpoints.keeper import Checkpoint

            return Checkpoint(place, self._client, self._environ, host_goes, self._checkpoints_end_at, _say)

        try:
            listener = CheckpointListener(place, make_checkpoint)
        except OSError as error:
            _say(f"checkpoints do not work here: {error}")
            return None
        self._checkpoints.append(listener)
        if self._sigterm_at is not None:
            listener.host_goes()
        return listener

    def _host_goes_at(self) -> float | None:
        """Time in epoch seconds at which EC2 takes the host back; `None` if no electron was notified."""
        found = (checkpoint.host_goes_at for checkpoint in self._checkpoints)
        return next((at for at in found if at is not None), None)

    def _left_its_host(self, failure: Failure) -> bool:
        """Whether the electron ended by itself after a Spot notice, so that the next attempt goes on."""
        return failure.kind == Kind.EXITED and self._host_goes_at() is not None

    def _checkpoints_end_at(self) -> float | None:
        return None if self._sigterm_at is None else self._sigterm_at + protocol.STOP_GRACE_S - _CHECKPOINT_MARGIN_S

    def _on_event(self, message: dict[str, Any]) -> None:
        if message["event"] == "died":
            self._died_rank = int(message["rank"])
        elif message["event"] == "started":
            self._times.setdefault("first_line", message["time"])

    def _hint_at_memory(self, failure: Failure) -> Failure:
        """Say that a process of the electron may have run out of memory: the electron only sees a broken pipe."""
        if not self._memory.oom_kills():
            return failure
        hint = " (meanwhile the kernel killed a process in this container for want of memory)"
        return failure._replace(message=failure.message + hint)

    def _why_it_died(self, pump: Pump, task: Task) -> Failure:
        ended = pump.end()
        limit = self._memory_limit()
        killed = self._memory.ran_out(ended.max_rss_bytes, limit)
        failure = exits.died(ended, task.name, killed, limit)
        if self._died_rank is not None:
            from covalent_cirro.runner import ranks

            assert self._placement is not None
            failure = ranks.of_rank(failure, self._died_rank, ranks.Placement(**self._placement))
        return failure if self._items is None else self._items.died(failure)

    def _memory_limit(self) -> int | None:
        found = self._memory.limit_bytes()
        return self._host.memory_limit_bytes() if found is None else found

    # --- after the electrons ---

    def _result(self, task: Task, answer: dict[str, Any] | Failure, logs: dict[str, protocol.Log]) -> NodeResult:
        output = None
        failure = answer if isinstance(answer, Failure) else None
        if not isinstance(answer, Failure) and self._where.compute_node is not None:
            output = Output(Inline(b""), Inline(b""))  # what this node returned is dropped
        elif not isinstance(answer, Failure):
            try:
                output = Output(
                    pickle=self._store(answer["pickle"]),
                    string=self._store(answer["string"]),
                    name=answer["name"],
                    doc=answer["doc"],
                )
            except answers.OutOfTime:
                failure = exits.terminated(task.name, None)
            except answers.S3Error as error:
                self._not_stored = True
                failure = Failure(Kind.RUNNER, f"the result of {task.name!r} could not be stored: {error}")
                _say(failure.message)
        return NodeResult(task.node_id, output, failure, logs["stdout"], logs["stderr"])

    def _items_result(
        self, items: MappedJob, task: Task, answer: dict[str, Any] | Failure, logs: dict[str, protocol.Log]
    ) -> NodeResult:
        failure = answer if isinstance(answer, Failure) and answer.kind != Kind.ITEMS else None
        try:
            items.finish(again=failure is not None and failure.kind in RUN_AGAIN)
        except answers.OutOfTime:
            failure = failure or exits.terminated(task.name, None)
        except (answers.S3Error, OSError) as error:
            self._not_stored = True
            failure = Failure(Kind.RUNNER, f"results of items of {task.name!r} could not be stored: {error}")
            _say(failure.message)
        failure = failure or items.failure()
        return NodeResult(task.node_id, None, failure, logs["stdout"], logs["stderr"], items.results)

    def _with_items(self, results: tuple[NodeResult, ...]) -> tuple[NodeResult, ...]:
        """The results with those of the items that earlier attempts have stored, also where nothing ran now."""
        if self._items is None:
            return results
        return tuple(each._replace(items=self._items.results) for each in results)

    def _store(self, path: str) -> Ref:
        size = os.path.getsize(path)
        if size <= limits.INLINE_BYTES and self._inlined + size <= limits.INLINE_TOTAL_BYTES:
            self._inlined += size
            with open(path, "rb") as file:
                return Inline(file.read())
        return blob_transfer.store(self._client, self._where.bucket, self._where.prefix, path, time.time(), self._wait)

    def _publish(self, call: Call, results: tuple[NodeResult, ...]) -> int:
        """Store the outcome, once. Returns the exit code of the outcome that is in S3 in the end."""
        from covalent_cirro.runner import publication

        self._interrupt = False
        self._times["stored"] = time.time()
        outcome = self._outcome(call, results)
        try:
            quick = self._quick if self._loaded is None else None
            stands = publication.publish(self._make_client, self._where, outcome, self._mac_key, quick)
        except publication.NotStored as error:
            _say(str(error))
            return ExitCode.STORE
        if stands is not None:
            return stands
        if self._not_stored:
            return ExitCode.STORE
        code = exits.exit_code(results)
        if code == ExitCode.OK and self._where.compute_node is None:
            for checkpoint in self._checkpoints:
                checkpoint.remove()
        return code

    def _stay_until_the_host_goes(self, goes_at: float) -> None:
        """Wait for SIGTERM, which a host that shuts down sends.

        AWS Batch starts the next attempt as soon as this one has ended, on this host if ECS does not drain it: a job
        would use up all its attempts within one notice.

        Args:
            goes_at: Time at which EC2 takes the host, in epoch seconds.
        """
        left_s = goes_at + _STILL_THERE_S - time.time()
        if left_s <= 0 or self._sigterm_at is not None:
            return
        _say("all is stored; waiting for the host to go, so that the next attempt does not start on it")
        try:
            self._interrupt = True
            self._check_stop()
            time.sleep(left_s)
        except _Stop:
            pass
        finally:
            self._interrupt = False

    def _outcome(self, call: Call, results: tuple[NodeResult, ...]) -> Outcome:
        ended = getattr(self, "_ended", None)
        host = getattr(self, "_host", None)
        peak = self._peak_bytes()
        limit = self._memory.limit_bytes() if host is None else self._memory_limit()
        nodes = () if self._team is None else self._team.nodes(self._used(), _failure_of(results) is not None)
        if nodes:  # the most of any node: each has the same memory
            peak = max((each.peak_memory_bytes or 0 for each in nodes), default=0) or None
        return Outcome(
            call_id=call.call_id,
            attempt=self._attempt,
            job_id=self._job_id(),
            results=results,
            usage=protocol.Usage(
                wall_s=max(0.0, self._times["stored"] - self._times["started"]),
                cpu_s=0.0 if ended is None else ended.cpu_s,
                peak_memory_bytes=peak,
                memory_limit_bytes=limit,
                gpus=getattr(self, "_gpus", ()),
                oom_kills=self._oom_kills(),
            ),
            python=python_version(),
            cloudpickle=getattr(self, "_cloudpickle", ""),
            host={} if host is None else host.facts(),
            times=self._times,
            nodes=nodes,
        )

    def _oom_kills(self) -> int | None:
        """Processes that the kernel killed for want of memory, on all nodes; `None` where no node counts them."""
        others = () if self._team is None else self._team.oom_kills()
        known = [each for each in (self._memory.oom_kills(), *others) if each is not None]
        return sum(known) if known else None

    def _peak_bytes(self) -> int | None:
        ended = getattr(self, "_ended", None)
        host = getattr(self, "_host", None)
        peak = self._memory.peak_bytes()
        if ended is not None:
            peak = max(peak or 0, ended.max_rss_bytes)
        limit = self._memory.limit_bytes() if host is None else self._memory_limit()
        if peak is not None and limit is not None:
            peak = min(peak, limit)  # a container has no more; an emulated one may, for a moment
        return peak

    def _used(self) -> dict[str, Any]:
        """What this node used, for the main node of the job."""
        ended, host = getattr(self, "_ended", None), getattr(self, "_host", None)
        facts = {} if host is None else host.facts()
        return {
            "cpu_s": 0.0 if ended is None else ended.cpu_s,
            "peak_memory_bytes": self._peak_bytes(),
            "oom_kills": self._memory.oom_kills(),
            "instance_type": facts.get("instance_type", ""),
            "instance_id": facts.get("instance_id", ""),
        }

    # --- signals and waiting ---

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        if self._sigterm_at is None:
            self._sigterm_at = time.monotonic()
            for checkpoint in self._checkpoints:
                checkpoint.host_goes()
            if self._pump is not None:
                self._pump.terminate(grace=bool(self._checkpoints) and self._checkpoints[-1].used)
            if self._interrupt:
                raise _Stop

    def _check_stop(self) -> None:
        if self._sigterm_at is not None:
            raise _Stop

    def _wait(self, pending: Pending) -> answers.Answer:
        """Wait for S3; after SIGTERM, only while time is left."""
        while True:
            left_s = 1.0
            if self._sigterm_at is not None:
                left_s = self._sigterm_at + protocol.STOP_GRACE_S - _STORE_MARGIN_S - time.monotonic()
                if left_s <= 0:
                    raise pending.out_of_time()
            try:
                return pending.result(min(1.0, left_s))
            except TimeoutError:
                continue

    def _put_part(self, part: str, data: bytes) -> Pending:
        return self._client.put(self._where.bucket, self._where.log_key(part), data)

    def clean_up(self) -> None:
        """Remove the runner's files from the disk, and close its connections."""
        if self._team is not None:
            self._team.close()
        if self._folder:
            import shutil

            shutil.rmtree(self._folder, ignore_errors=True)


def python_version() -> str:
    """``"3.11.7"``; what ``platform.python_version()`` says, without its import."""
    return ".".join(str(part) for part in sys.version_info[:3])


def _failure_of(results: tuple[NodeResult, ...]) -> Failure | None:
    return next((each.failure for each in results if each.failure is not None), None)


def _make_folder(environ: Mapping[str, str]) -> str:
    path = os.path.join(environ.get("TMPDIR") or "/tmp", f"cirro-{os.getpid()}-{os.urandom(6).hex()}")  # noqa: S108
    os.mkdir(path, 0o700)
    return path


def _whole(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdigit() else default


def _say(text: str) -> None:
    sys.stderr.write(f"covalent-cirro runner: {text}\n")
    sys.stderr.flush()
