"""The runner's parent process: fetches the call and its blobs, has the electrons run, and stores their results.

The electron waits for the imports at the top of this file and for no others: awscrt, which takes longer than all of
them, is imported while the electron runs, or when it is needed. A short job with a small result does not need it.

It never unpickles, and never puts a payload into a log line.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from covalent_cirro.contract import documents, limits, packed_variables, problems, protocol
from covalent_cirro.contract.failure_kinds import Failure, Kind
from covalent_cirro.contract.protocol import Call, ExitCode, NodeResult, Outcome, Task
from covalent_cirro.contract.references import Input
from covalent_cirro.runner import exits, job_identity, requests, shown_texts
from covalent_cirro.runner.job_usage import JobUsage
from covalent_cirro.runner.process import ElectronProcess
from covalent_cirro.runner.pump import MEANWHILE_S, Pump
from covalent_cirro.runner.s3 import answers
from covalent_cirro.runner.s3.job_bucket import JobBucket
from covalent_cirro.runner.sigterm import Sigterm, SigtermArrived
from covalent_cirro.runner.times import times_of

if TYPE_CHECKING:
    from covalent_cirro.contract.maps import Mapped
    from covalent_cirro.runner.checkpoints.attempt_checkpoints import AttemptCheckpoints
    from covalent_cirro.runner.checkpoints.listener import CheckpointListener
    from covalent_cirro.runner.mapped_job import MappedJob
    from covalent_cirro.runner.ranks import Placement
    from covalent_cirro.runner.reporting import Reporting
    from covalent_cirro.runner.s3.s3_client import Pending
    from covalent_cirro.runner.stored_blobs import StoredBlobs
    from covalent_cirro.runner.task_results import TaskResults
    from covalent_cirro.runner.team import Team


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
        self._folder = ""
        self._cloudpickle = ""
        self._prepared = False
        self._pump: Pump | None = None
        self._published: int | None = None
        self._mapped: Mapped | None = None
        self._items: MappedJob | None = None
        self._stored: StoredBlobs | None = None
        self._team: Team | None = None
        self._placement: Placement | None = None
        self._died_rank: int | None = None
        self._checkpoints: AttemptCheckpoints | None = None
        self._results: TaskResults | None = None
        self._sigterm = Sigterm(self._pass_on_sigterm)
        self._usage = JobUsage({os.getpid(), process.pid, os.getppid()}, environ)

    def run(self, argument: str) -> int:
        """Run the call; returns the exit code."""
        if importlib.util.find_spec("awscrt") is None:
            # It is imported later, but without it no result could be stored.
            raise ModuleNotFoundError("No module named 'awscrt': the container's image needs it", name="awscrt")
        try:
            with self._sigterm.interrupts():
                self._job = job_identity.identify(argument, self._environ)
                limit_bytes = self._usage.cgroup_limit_bytes
                self._bucket = JobBucket(self._job.where, self._environ, limit_bytes, self._sigterm.wait)
                call = self._read_call()
        except (answers.S3Error, problems.ProtocolError) as error:
            _say(f"cannot read the call: {error}")
            return ExitCode.BAD_CALL
        except SigtermArrived:
            _say("stopped by SIGTERM before the call was read")
            return ExitCode.TERMINATED
        if self._published is not None:
            _say("an earlier attempt has published the outcome of this call; nothing to do")
            return self._published
        times = times_of(self._environ)
        mask = shown_texts.hide(packed_variables.secrets_in(self._environ))
        self._pump = pump = Pump(
            self._process, self._put_part, self._sigterm.wait, self._job.attempt, times, _say, mask
        )
        if self._sigterm.at is not None:
            pump.terminate()
        try:
            results = self._run_call(call, pump)
        except SigtermArrived:
            results = exits.all_terminated(call.tasks)
        except Exception as error:
            import traceback

            # A bug of the runner: its traceback goes to the log, and its message into the outcome.
            text = shown_texts.shown(traceback.format_exc())
            sys.stderr.write(text)
            broken = Failure(Kind.RUNNER, shown_texts.shown(f"the runner broke: {type(error).__name__}: {error}"), text)
            results = exits.all_failed(call.tasks, broken)
        if self._team is not None:
            try:
                self._team.conclude(exits.first_failure(results), self._usage.of_node())
            except (answers.S3Error, SigtermArrived) as error:  # while it looked for the main node
                _say(f"the main node was not told: {error or 'SIGTERM arrived'}")
        if self._items is not None:  # also those that earlier attempts have stored, where nothing ran now
            results = tuple(each._replace(items=self._items.results) for each in results)
        code = self._publish(call, results)
        if code == ExitCode.TERMINATED and self._team is not None and self._team.passes:
            return ExitCode.HOST_GOING
        goes_at = self._host_goes_at()
        if code != ExitCode.TERMINATED or self._checkpoints is None or goes_at is None:
            return code
        self._checkpoints.stay_until_the_host_goes(goes_at)
        return ExitCode.HOST_GOING

    # --- before the electrons ---

    def _read_call(self) -> Call:
        job, bucket = self._job, self._bucket
        call = documents.parse_call(bucket.read(job.where.call_key))
        if job.where.child_index is not None or any(task.mapped is not None for task in call.tasks):
            from covalent_cirro.runner import mapped_job

            self._mapped = mapped_job.mapped_of(call, job.where.child_index)
        if call.num_nodes > 1:
            from covalent_cirro.runner.team import make_team

            self._team = make_team(call.num_nodes, job, bucket, self._environ, self._sigterm)
        if job.attempt > 1 and job.where.compute_node is None:
            from covalent_cirro.runner import publication

            self._published = publication.published(job, bucket)
        return call

    def _run_call(self, call: Call, pump: Pump) -> tuple[NodeResult, ...]:
        hello = pump.wait_for("hello")
        if hello is None:
            self._sigterm.check()
            ended = pump.end()
            raise RuntimeError(f"the electron's process did not start: exit code {ended.exit_code} {ended.signal}")
        self._cloudpickle = hello["cloudpickle"]
        conflict = protocol.version_conflict(call, python_version(), self._cloudpickle)
        if not self._cloudpickle:
            conflict = f"the container has no cloudpickle: install cloudpickle=={call.cloudpickle} in the image"
        if conflict is not None:
            return exits.all_failed(call.tasks, Failure(Kind.VERSIONS, conflict))

        self._folder = _make_folder(self._environ)
        if self._mapped is not None:
            from covalent_cirro.runner.mapped_job import make_mapped_job

            interval_s = times_of(self._environ).chunk_interval
            self._items = make_mapped_job(
                self._mapped, self._job, self._bucket, self._folder, interval_s, self._items_stored, _say
            )
        blobs, joined = requests.blobs_of(call), requests.joined_of(call)
        paths: dict[Input, str] | Failure = {}
        if blobs or joined or self._items is not None:
            from covalent_cirro.runner import call_inputs

            paths = call_inputs.fetch(blobs, joined, self._items, self._bucket, self._folder, self._sigterm)
        if isinstance(paths, Failure):
            return exits.all_failed(call.tasks, paths)
        self._times["fetched"] = time.time()
        self._sigterm.check()
        if call.stored:
            self._offer_stored(call)
        if call.processes:
            from covalent_cirro.runner.team import place_processes

            placement = place_processes(call, self._job, self._team, self._bucket, self._sigterm)
            if isinstance(placement, Failure):
                return exits.all_failed(call.tasks, placement)
            self._placement = placement
        return self._run_tasks(call, paths, pump)

    def _items_stored(self, index: int) -> None:
        """Results of all items before ``index`` are in S3: their checkpoints are not needed any more."""
        if self._checkpoints is not None:
            self._checkpoints.remove_done(index)

    def _offer_stored(self, call: Call) -> None:
        """Listen to requests for the stored values that the call names."""
        from covalent_cirro.runner.call_inputs import fetch_blob
        from covalent_cirro.runner.stored_blobs import StoredBlobs

        self._bucket.client()  # in this thread: a blob is fetched in one of those that answer requests
        fetch = functools.partial(fetch_blob, self._bucket, self._folder)
        self._stored = StoredBlobs(self._folder, call.stored, fetch)

    # --- the electrons ---

    def _run_tasks(self, call: Call, paths: Mapping[Input, str], pump: Pump) -> tuple[NodeResult, ...]:
        outputs: dict[int, str] = {}
        ran: list[tuple[Task, dict[str, Any] | Failure, dict[str, protocol.Log]]] = []
        for task in call.tasks:
            pump.begin()
            if ran and isinstance(ran[-1][1], Failure):
                not_run = Failure(Kind.NOT_RUN, "an earlier electron of the same task group failed")
                ran.append((task, not_run, pump.finish_logs()))
                continue
            answer = self._run_task(call, task, paths, outputs, pump)
            if not isinstance(answer, Failure):
                outputs[task.node_id] = answer.get("pickle", "")
            # No electron runs after the failed one: the end of its log explains the failure.
            tail_bytes = limits.LOG_TAIL_BYTES if isinstance(answer, Failure) else exits.tail_bytes(len(call.tasks))
            ran.append((task, answer, pump.finish_logs(tail_bytes)))
        self._usage.finish()
        results, items = self._results, self._items
        assert results is not None  # the first electron was run
        if items is None:
            return tuple(results.of_electron(*each) for each in ran)
        return tuple(results.of_items(items, *each) for each in ran)

    def _run_task(
        self, call: Call, task: Task, paths: Mapping[Input, str], outputs: Mapping[int, str], pump: Pump
    ) -> dict[str, Any] | Failure:
        """Run an electron; returns what it returned (`child.py`), or why it failed."""
        control = os.path.join(self._folder, f"checkpoint-{task.node_id}")
        attempt = call.attempts_before + self._job.attempt
        first = task is call.tasks[0]
        request = requests.build(
            call, task, paths, outputs, self._folder, checkpoint=control, attempt=attempt, first=first
        )
        if self._items is not None:
            request["task"]["mapped"] = self._items.request()
        if self._placement is not None:
            request["task"]["placement"] = self._placement._asdict()
        pump.send(request)
        # The electron runs by now, and does not wait for what follows.
        from covalent_cirro.runner.reporting import report_on

        self._usage.begin()
        checkpoint = (self._checkpoints or self._begin_beside(call)).listen(task.node_id, control)
        interval_s = times_of(self._environ).report_interval
        reporting = report_on(task, call, control, attempt, self._bucket, interval_s, _say)
        done = pump.wait_for("done", self._on_event, functools.partial(self._meanwhile, reporting, pump))
        answer: dict[str, Any] | Failure
        if done is not None and "output" in done:
            answer = done["output"]
        elif done is not None:
            answer = self._usage.hint_at_memory(Failure(**done["failure"]))
        else:
            answer = self._why_it_died(pump, task)
        if isinstance(answer, Failure):
            answer = self._explain(answer, task, pump, checkpoint)
        if self._team is not None:
            answer = self._team.settle(answer, stopped=self._sigterm.at is not None)
        if task is call.tasks[-1] or isinstance(answer, Failure):
            self._times["ran"] = done["time"] if done is not None else time.time()
            self._usage.ended = pump.end()
        reporting.finish()
        if checkpoint is not None:
            checkpoint.finish(succeeded=not isinstance(answer, Failure), orderly=done is not None)
        return answer

    def _begin_beside(self, call: Call) -> AttemptCheckpoints:
        """Begin with what needs imports that the electron does not wait for: it runs by now."""
        from covalent_cirro.runner.checkpoints.attempt_checkpoints import AttemptCheckpoints
        from covalent_cirro.runner.task_results import TaskResults

        started, client = self._times["started"], self._bucket.client
        self._results = TaskResults(self._bucket, _say)
        self._checkpoints = AttemptCheckpoints(call, self._job, started, client, self._environ, self._sigterm, _say)
        return self._checkpoints

    def _meanwhile(self, reporting: Reporting, pump: Pump) -> float:
        """Begin with what an electron that runs for a while will need, send what it reports, and see other nodes."""
        if not self._prepared:
            self._prepared = True
            self._bucket.client()
            if self._items is not None:
                self._items.begin()
        if self._team is None:
            return reporting.look()
        if self._team.look():
            pump.terminate()
        return min(MEANWHILE_S, reporting.look())

    def _on_event(self, message: dict[str, Any]) -> None:
        if message["event"] == "died":
            self._died_rank = int(message["rank"])
        elif message["event"] == "started":
            self._times.setdefault("first_line", message["time"])

    def _why_it_died(self, pump: Pump, task: Task) -> Failure:
        failure = self._usage.died(pump.end(), task.name)
        if self._died_rank is not None:
            from covalent_cirro.runner import ranks

            assert self._placement is not None
            failure = ranks.of_rank(failure, self._died_rank, self._placement)
        return failure if self._items is None else self._items.died(failure)

    def _host_goes_at(self) -> float | None:
        """Time in epoch seconds at which EC2 takes the host back; `None` if no electron was notified."""
        return None if self._checkpoints is None else self._checkpoints.host_goes_at

    def _explain(self, found: Failure, task: Task, pump: Pump, checkpoint: CheckpointListener | None) -> Failure:
        """Why an electron failed, also where it was not the electron that caused this, whatever it raised."""
        fetch_failed = "" if checkpoint is None else checkpoint.fetch_failed
        if self._stored is not None:
            fetch_failed = self._stored.failed or fetch_failed
        if fetch_failed:  # another attempt may succeed
            found = found._replace(kind=Kind.FETCH, message=fetch_failed)
        # An electron that ends by itself after a Spot notice leaves its host, so that the next attempt goes on.
        stopped = pump.terminating or (found.kind == Kind.EXITED and self._host_goes_at() is not None)
        return exits.terminated(task.name, found) if stopped and found.kind != Kind.ITEMS else found

    # --- after the electrons ---

    def _publish(self, call: Call, results: tuple[NodeResult, ...]) -> int:
        """Store the outcome, once. Returns the exit code of the outcome that is in S3 in the end."""
        from covalent_cirro.runner import publication

        self._times["stored"] = time.time()
        try:
            stands = publication.publish(self._outcome(call, results), self._job, self._bucket)
        except publication.NotStored as error:
            _say(str(error))
            return ExitCode.STORE
        if stands is not None:
            return stands
        if self._results is not None and self._results.not_stored:
            return ExitCode.STORE
        code = exits.exit_code(results)
        if code == ExitCode.OK and self._job.where.compute_node is None and self._checkpoints is not None:
            self._checkpoints.remove()
        return code

    def _outcome(self, call: Call, results: tuple[NodeResult, ...]) -> Outcome:
        team, failed = self._team, exits.first_failure(results) is not None
        nodes = () if team is None else team.nodes(self._usage.of_node(), failed)
        wall_s = max(0.0, self._times["stored"] - self._times["started"])
        return Outcome(
            call_id=call.call_id,
            attempt=self._job.attempt,
            job_id=self._job.job_id,
            results=results,
            usage=self._usage.of_job(wall_s, nodes, () if team is None else team.oom_kills()),
            python=python_version(),
            cloudpickle=self._cloudpickle,
            host=self._usage.host_facts(),
            times=self._times,
            nodes=nodes,
        )

    # --- at any time ---

    def _pass_on_sigterm(self) -> None:
        checkpoints = self._checkpoints
        if checkpoints is not None:
            checkpoints.host_goes()
        if self._pump is not None:
            self._pump.terminate(grace=checkpoints is not None and checkpoints.used)

    def _put_part(self, part: str, data: bytes) -> Pending:
        return self._bucket.put(self._job.where.log_key(part), data)

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


def _make_folder(environ: Mapping[str, str]) -> str:
    path = os.path.join(environ.get("TMPDIR") or "/tmp", f"cirro-{os.getpid()}-{os.urandom(6).hex()}")  # noqa: S108
    os.mkdir(path, 0o700)
    return path


def _say(text: str) -> None:
    # Names of files that the electron chose are in it.
    sys.stderr.write(f"covalent-cirro runner: {shown_texts.shown(text)}\n")
    sys.stderr.flush()
