"""The local stack: an emulated AWS, a deployment in it and a Covalent server, as processes of this machine.

Knows the files of one state folder and what has to run for it; nothing of the command line. Two folders never share a
process, a port or a file.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from covalent_cirro import covalent_server, processes
from covalent_cirro.errors import CirroError, EmulatorError, HostError
from covalent_cirro.processes import Identity

FORMAT = 1
"""Version of the state file."""

STATE_FILE = "local.json"
EMULATOR, COVALENT, LOGS, LOCK = "emulator", "covalent", "logs", "lock"
"""All that the state folder holds; ``down`` removes these and nothing else."""

DEPLOYMENT = "cirro"
"""Name of the deployment in the emulated account."""

IMAGE = "cirro-runner"
"""The image of the jobs: docker/README.md makes it where they are containers; a process has no use for it."""

REGION = "us-east-1"

EMULATOR_START_S = 90.0
SERVER_START_S = 180.0
"""Seconds until a process has to answer; several times what a slow, busy machine with two cores takes."""

STOP_PATIENCE_S = 10.0
"""Seconds that a process gets to end its own children after SIGTERM."""

ENDING_S = 1.0
"""Seconds in which a process that no longer answers may still turn out to be ending."""

PORT_TRIES = 3
"""A port that was free can be taken before the server listens on it."""

ACCESS_KEY = "cirro-local"
"""Access key and secret key. The emulator takes any; these can open nothing else."""

JOB_STATES = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED")

Say = Callable[[str], None]
"""Told each step, in a few words."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """A process of the local stack.

    Attributes:
        pid: Its pid, which is also its process group and session.
        started: Its start, seconds since the epoch; tells it from a later process with the same pid.
        url: Where it answers; empty while it starts.
        log: File with its stdout and stderr.
    """

    pid: int
    started: float
    url: str
    log: str

    @property
    def identity(self) -> Identity:
        """What tells the process from all others."""
        return Identity(self.pid, self.started)

    @property
    def running(self) -> bool:
        """Whether it runs and has answered."""
        return self.url != "" and processes.is_alive(self.identity)


@dataclass(frozen=True, kw_only=True)
class State:
    """What was started for a state folder, as its state file says.

    Attributes:
        emulator: The emulated AWS.
        server: The Covalent server.
        settings: Settings of the executor that the deployment gave; empty before it is made.
        region: AWS region.
    """

    emulator: Service | None = None
    server: Service | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    region: str = REGION


@dataclass(frozen=True, kw_only=True)
class Status:
    """What runs now.

    Attributes:
        endpoint_url: Of the emulated AWS; `None` where it does not run.
        server_url: Of the Covalent server and its UI; `None` where it does not run.
        deployment: Name of the deployment; `None` where there is none yet.
        settings: The executor's settings for it.
        jobs: Number of jobs by state, over all queues; all seven states.
    """

    endpoint_url: str | None
    server_url: str | None
    deployment: str | None
    settings: Mapping[str, Any]
    jobs: Mapping[str, int]


class Playground:
    """The local stack of one state folder.

    Args:
        state_dir: The folder. It need not exist; one with other things in it is refused by `up`.
    """

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir.absolute()
        self.covalent_dir = self.state_dir / COVALENT

    def up(
        self,
        *,
        server: bool = False,
        vcpus: int | None = None,
        docker: bool = False,
        say: Say = lambda step: None,
    ) -> Status:
        """Start what does not run yet; a second call changes nothing.

        Args:
            server: With a Covalent server.
            vcpus: vCPUs of the emulated account's CPU instances; unset: as many as this machine has cores. Read when
                the deployment is made, that is when the emulator starts.
            docker: Run jobs as containers of their images, on the Docker engine of this machine, instead of as
                processes. Read when the emulator starts.
            say: Told each step.

        Raises:
            EmulatorError: The emulator did not start, or the folder holds something else.
            HostError: The Covalent server did not start.
            StackError, AwsError: The deployment could not be made.
        """
        self._require_ours()
        with self._locked():
            state = self.read()
            if state.emulator is None or not state.emulator.running:
                state = self._start_emulator(state, say, docker)
            if not state.settings:
                say("deploying with CloudFormation")
                state = self._write(self._deploy(state, vcpus or os.cpu_count() or 1))
            if server and (state.server is None or not state.server.running):
                say("starting the Covalent server")
                state = self._start_server(state)
        return self.status()

    def down(self, say: Say = lambda step: None) -> bool:
        """End every process that `up` started, jobs included, and remove the state.

        Dispatches that still run are cancelled. Other processes and other files in the folder are left alone.

        Returns:
            False where there was nothing to do.
        """
        if not (self.state_dir / STATE_FILE).exists():
            return False
        with self._locked():
            state = self.read()
            for name, service in (("Covalent server", state.server), ("emulator", state.emulator)):
                if service is not None:
                    say(f"stopping the {name}")
                    processes.end(service.identity, patience_s=STOP_PATIENCE_S)
            for folder in (EMULATOR, COVALENT, LOGS):
                shutil.rmtree(self.state_dir / folder, ignore_errors=True)
            for file in (STATE_FILE, LOCK):
                (self.state_dir / file).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.state_dir.rmdir()
        return True

    def status(self) -> Status:
        """What runs now. Asks the emulator for its jobs.

        Raises:
            EmulatorError: The state file is of another version, or the emulator runs but does not answer.
        """
        state = self.read()
        emulator = state.emulator if state.emulator is not None and state.emulator.running else None
        server = state.server if state.server is not None and state.server.running else None
        deployed = emulator is not None and bool(state.settings)
        jobs = dict.fromkeys(JOB_STATES, 0)
        if deployed:
            assert emulator is not None
            try:
                jobs |= self._jobs(state)
            except EmulatorError:
                if processes.ends_within(emulator.identity, ENDING_S):  # it was ending while we asked
                    return self.status()
                raise
        return Status(
            endpoint_url=None if emulator is None else emulator.url,
            server_url=None if server is None else server.url,
            deployment=DEPLOYMENT if deployed else None,
            settings=state.settings if deployed else {},
            jobs=jobs,
        )

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """An environment in which AWS is the emulator, and Covalent is the server of this folder.

        No AWS or Covalent variable of ``base`` stays: neither a real account nor another Covalent can be meant.
        Programs of this Python's environment come first on the path.

        Args:
            base: The environment to start from, ``os.environ`` mostly.

        Raises:
            EmulatorError: The emulator does not run.
        """
        state = self.read()
        if state.emulator is None or not state.emulator.running:
            raise EmulatorError(f"no local stack runs for {self.state_dir}. Start it with `cirro local up --server`.")
        server = covalent_server.client_environment(self.covalent_dir) if state.server is not None else {}
        return {**self._clean(base), **self._aws_environment(state), **server}

    def read(self) -> State:
        """The state file; an empty state where there is none.

        Raises:
            EmulatorError: It is damaged, or of another version.
        """
        try:
            document = json.loads((self.state_dir / STATE_FILE).read_text())
            if document.pop("format") != FORMAT:
                raise ValueError("another version wrote it")
            services = {
                name: None if document[name] is None else Service(**document.pop(name))
                for name in ("emulator", "server")
            }
            return State(**{**document, **services})
        except FileNotFoundError:
            return State()
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise EmulatorError(
                f"{self.state_dir / STATE_FILE} cannot be read ({error}). End the processes it names, "
                f"then remove {self.state_dir}."
            ) from error

    # --- the emulator and its deployment ------------------------------------------------------------------------------

    def _start_emulator(self, state: State, say: Say, docker: bool) -> State:
        for service in (state.server, state.emulator):  # A server of the emulator that is gone knows its old port.
            if service is not None:
                processes.end(service.identity, patience_s=STOP_PATIENCE_S)
        say("starting the emulator")
        folder, log = self.state_dir / EMULATOR, self.state_dir / LOGS / "emulator.log"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = [sys.executable, "-m", "covalent_cirro.emulator", "--port", "0", "--state-dir", str(folder)]
        identity = processes.start(
            [*command, "--docker"] if docker else command,
            log=log,
            environment=self._clean(os.environ),
            folder=folder,
        )
        starting = Service(pid=identity.pid, started=identity.started, url="", log=str(log))
        self._write(State(emulator=starting))
        with self._ended_on_failure(identity):
            announcement = processes.wait_for(
                functools.partial(_read_json, folder / "emulator.json"), identity, log, EMULATOR_START_S, EmulatorError
            )
        ready = replace(starting, url=str(announcement["endpoint_url"]))
        return self._write(State(emulator=ready, region=str(announcement.get("region", REGION))))

    def _deploy(self, state: State, vcpus: int) -> State:
        from covalent_cirro import deployment

        client = self._client(state, "cloudformation")
        # On-demand instances come on top of Spot ones: 1 leaves their queue usable and adds next to nothing.
        parameters = {"CpuSpotMaxVcpus": vcpus, "CpuOnDemandMaxVcpus": 1}
        try:
            done = deployment.deploy(client, DEPLOYMENT, parameters)
        except CirroError:
            raise
        except Exception as error:  # not an answer of AWS's: the emulator itself broke
            assert state.emulator is not None
            log = Path(state.emulator.log)
            raise EmulatorError(
                f"the emulator at {state.emulator.url} could not deploy: {error}. "
                f"The end of {log}:\n{processes.log_end(log)}"
            ) from error
        settings = {
            **done.settings,
            "endpoint_url": client.meta.endpoint_url,
            "container_image_uri": IMAGE,
        }
        return replace(state, settings=settings)

    def _jobs(self, state: State) -> dict[str, int]:
        from botocore.exceptions import BotoCoreError, ClientError

        batch = self._client(state, "batch")
        try:
            queues = [queue["jobQueueName"] for queue in batch.describe_job_queues()["jobQueues"]]
            pages = batch.get_paginator("list_jobs").paginate
            return {
                status: sum(
                    len(page["jobSummaryList"]) for queue in queues for page in pages(jobQueue=queue, jobStatus=status)
                )
                for status in JOB_STATES
            }
        except (BotoCoreError, ClientError) as error:
            assert state.emulator is not None
            raise EmulatorError(
                f"the emulator at {state.emulator.url} does not answer as it should: {error}. "
                f"Its log is {state.emulator.log}; `cirro local down` and `up` start it anew."
            ) from error

    def _client(self, state: State, service: str) -> Any:
        import boto3

        assert state.emulator is not None
        make: Any = boto3.client  # typed one overload a service where boto3-stubs is installed
        return make(
            service,
            region_name=state.region,
            endpoint_url=state.emulator.url,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=ACCESS_KEY,
        )

    # --- the Covalent server ------------------------------------------------------------------------------------------

    def _start_server(self, state: State) -> State:
        if state.server is not None:
            processes.end(state.server.identity, patience_s=STOP_PATIENCE_S)
        old_port = int(state.server.url.rpartition(":")[2]) if state.server is not None and state.server.url else None
        log = self.state_dir / LOGS / "covalent.log"
        for tries_left in reversed(range(PORT_TRIES)):
            log.unlink(missing_ok=True)
            # Clients that wait for a dispatch of a server that died find the next one at the same place.
            port = old_port or processes.free_port()
            old_port = None
            covalent_server.write_config(self.covalent_dir, port=port, executors={"cirro": dict(state.settings)})
            identity = processes.start(
                [sys.executable, "-m", "covalent_cirro.covalent_server", str(port)],
                log=log,
                environment={
                    **self._clean(os.environ),
                    **self._aws_environment(state),
                    **covalent_server.server_environment(self.covalent_dir),
                },
                folder=self.covalent_dir,
            )
            service = Service(pid=identity.pid, started=identity.started, url="", log=str(log))
            self._write(replace(state, server=service))
            url = f"http://{covalent_server.ADDRESS}:{port}"
            try:
                with self._ended_on_failure(identity):
                    processes.wait_for(functools.partial(_answers, url), identity, log, SERVER_START_S, HostError)
            except HostError:
                if tries_left and "address already in use" in processes.log_end(log):
                    continue
                raise
            return self._write(replace(state, server=replace(service, url=url)))
        raise AssertionError("the last try returns or raises")

    # --- the state folder ---------------------------------------------------------------------------------------------

    def _require_ours(self) -> None:
        if self.state_dir.exists() and not (self.state_dir / STATE_FILE).exists():
            others = [entry.name for entry in self.state_dir.iterdir() if entry.name != LOCK]
            if others:
                raise EmulatorError(
                    f"{self.state_dir} holds other things ({', '.join(sorted(others)[:3])}) and no local stack: "
                    "nothing was started. Name an empty or a new folder with --state-dir."
                )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.state_dir.mkdir(parents=True, exist_ok=True)
        with (self.state_dir / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _ended_on_failure(self, identity: Identity) -> Iterator[None]:
        try:
            yield
        except BaseException:
            processes.end(identity, patience_s=STOP_PATIENCE_S)
            raise

    def _write(self, state: State) -> State:
        temporary = self.state_dir / (STATE_FILE + ".new")
        temporary.write_text(json.dumps({"format": FORMAT, **asdict(state)}, indent=2))
        temporary.replace(self.state_dir / STATE_FILE)
        return state

    def _clean(self, base: Mapping[str, str]) -> dict[str, str]:
        """``base`` without anything of AWS and Covalent, and with this Python's programs first."""
        kept = {key: value for key, value in base.items() if not key.startswith(("AWS_", "COVALENT_"))}
        kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
        return kept

    def _aws_environment(self, state: State) -> dict[str, str]:
        assert state.emulator is not None
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": ACCESS_KEY,
            "AWS_DEFAULT_REGION": state.region,
            "AWS_REGION": state.region,
            "AWS_ENDPOINT_URL": state.emulator.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            # The user's own profiles stay out of this; the files need not exist.
            "AWS_CONFIG_FILE": str(self.state_dir / "aws-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.state_dir / "aws-credentials"),
        }


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _answers(url: str) -> bool | None:
    try:
        with urllib.request.urlopen(url + "/api/v1/dispatches/list?count=1", timeout=10):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return None
