"""The local stack: an emulated AWS, a deployment in it and a Covalent server, as processes of this machine.

Two state folders never share a process, a port or a file. It must not know the command line, nor the form of the state
file.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from covalent_cirro import private
from covalent_cirro.covalent_server import config, plain_paths
from covalent_cirro.errors import AwsError, CirroError, EmulatorError, HostError, NotFound, StackError
from covalent_cirro.jobs.states import ACTIVE_STATES, TERMINAL_STATES
from covalent_cirro.local import covalent_process, processes
from covalent_cirro.local.emulator import keys
from covalent_cirro.local.processes import ProcessIdentity
from covalent_cirro.local.state_folder import REGION, Service, State, StateFolder
from covalent_cirro.settings import BY_NAME

EMULATOR, COVALENT, LOGS = "emulator", "covalent", "logs"
"""Folders of the processes in the state folder; ``down`` removes these, the state and nothing else."""

DEPLOYMENT = "cirro"
"""Name of the deployment in the emulated account."""

IMAGE = "cirro-runner"
"""The image of jobs that are containers (docker/README.md makes it); jobs that are processes do not use it."""

ON_DEMAND_VCPUS = int(BY_NAME["vcpu"].default)
"""vCPUs of on-demand instances: those that an electron has by default."""

MULTI_NODE_VCPUS = 16
"""vCPUs of the instances of one electron with several nodes: eight nodes of two."""

FARGATE_VCPUS = 4
"""vCPUs of jobs on Fargate Spot, and as many on demand: two electrons of the default size on each."""

EMULATOR_START_S = 90.0
SERVER_START_S = 180.0
"""Seconds until a process has to answer; several times the time on a slow, busy machine with two cores."""

STOP_PATIENCE_S = 10.0
"""Seconds after SIGTERM in which a process can end its own children."""

ENDING_S = 1.0
"""Seconds in which a process that no longer answers may still end."""

ANSWER_S = 30.0
"""Seconds in which the emulator has to answer a request of its own routes."""

PORT_TRIES = 3
"""A port that was free can be taken before the server listens on it."""

JOB_STATES = (*ACTIVE_STATES, *TERMINAL_STATES)

_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens URLs of this machine, whatever proxy the environment names."""

Say = Callable[[str], None]
"""Called with each step, in a few words."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """What runs now.

    Attributes:
        endpoint_url: URL of the emulated AWS; `None` where it does not run.
        server_url: URL of the Covalent server and its UI; `None` where it does not run.
        deployment: Name of the deployment; `None` where there is none: not yet, or not any more.
        settings: The executor's settings for it.
        jobs: Number of jobs by state, over all queues; all seven states.
    """

    endpoint_url: str | None
    server_url: str | None
    deployment: str | None
    settings: Mapping[str, Any]
    jobs: Mapping[str, int]


class LocalStack:
    """The local stack of one state folder.

    Args:
        state_dir: The folder. It need not exist; `up` refuses one with other files in it.
    """

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir.absolute()
        self._folder = StateFolder(self.state_dir)

    @property
    def covalent_dir(self) -> Path:
        """Folder of the Covalent server: in the state folder, or where a link there leads (`plain_paths.py`)."""
        return plain_paths.follow(self.state_dir / COVALENT)

    def up(
        self,
        *,
        server: bool = False,
        vcpus: int | None = None,
        docker: bool = False,
        images: Mapping[str, Path] = MappingProxyType({}),
        say: Say = lambda step: None,
    ) -> Status:
        """Start what does not run yet; a second call with the same arguments changes nothing.

        Args:
            server: Start a Covalent server, too.
            vcpus: vCPUs of the emulated account's CPU instances; unset: as many as this machine has cores. Read when
                the deployment is made, that is when the emulator starts.
            docker: Run jobs as containers of their images, on the Docker engine of this machine, instead of as
                processes. Read when the emulator starts.
            images: By name of an image, a folder that is on the path of Python in containers that are processes.
            say: Called with each step.

        Raises:
            EmulatorError: The emulator did not start, or the folder has other files in it.
            HostError: The Covalent server did not start.
            StackError, AwsError: The deployment could not be made.
        """
        self._folder.require_ours()
        with self._folder.locked():
            state = self.read()
            if state.emulator is None or not state.emulator.running:
                state = self._start_emulator(state, say, docker)
            if images:
                self._put_images(state, images)
            given = self._given(state) if state.settings else {}
            if given:  # `cirro deploy` may have changed it since
                state = self._folder.write(replace(state, settings=self._settings(state, given)))
            else:
                say("deploying with CloudFormation")
                state = self._deploy(state, vcpus or os.cpu_count() or 1)
                runs = state.server is not None and state.server.running
                self._write_config(state, _port(state.server) if runs else covalent_process.CLOSED_PORT)
                self._folder.write(state)
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
        if not self._folder.in_use:
            return False
        with self._folder.locked():
            state = self.read()
            for name, service in (("Covalent server", state.server), ("emulator", state.emulator)):
                if service is not None:
                    say(f"stopping the {name}")
                    processes.end(service.identity, patience_s=STOP_PATIENCE_S)
            for folder in (EMULATOR, LOGS):
                shutil.rmtree(self.state_dir / folder, ignore_errors=True)
            plain_paths.remove(self.state_dir / COVALENT)
            self._folder.clear()
        with contextlib.suppress(OSError):
            self.state_dir.rmdir()
        return True

    def status(self) -> Status:
        """What runs now, and the number of jobs of the emulator.

        Raises:
            EmulatorError: The state file is of another version, or the emulator runs but does not answer.
        """
        state = self.read()
        emulator = state.emulator if state.emulator is not None and state.emulator.running else None
        server = state.server if state.server is not None and state.server.running else None
        given: Mapping[str, str] = {}
        jobs = dict.fromkeys(JOB_STATES, 0)
        if emulator is not None and state.settings:
            try:
                given = self._given(state)
                jobs |= self._jobs(state) if given else {}
            except EmulatorError:
                if processes.ends_within(emulator.identity, ENDING_S):  # it was ending during the call
                    return self.status()
                raise
        return Status(
            endpoint_url=None if emulator is None else emulator.url,
            server_url=None if server is None else server.url,
            deployment=DEPLOYMENT if given else None,
            settings=self._settings(state, given) if given else {},
            jobs=jobs,
        )

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """An environment in which AWS is the emulator, and Covalent has the config and the server of this folder.

        The AWS and Covalent variables of ``base`` are removed: neither a real account nor another Covalent is used. In
        a local stack without a server, nothing listens at the address that the config names.
        Programs of this Python's environment come first on the path.

        Args:
            base: The environment to start from, ``os.environ`` mostly.

        Raises:
            EmulatorError: The emulator does not run.
        """
        state = self.read()
        if state.emulator is None or not state.emulator.running:
            raise EmulatorError(f"no local stack runs for {self.state_dir}. Start it with `cirro local up --server`.")
        # Older versions wrote a config only for a server.
        has_config = covalent_process.config_file(self.covalent_dir).exists()
        covalent = covalent_process.client_environment(self.covalent_dir) if has_config else {}
        return {**self._clean(base), **self._aws_environment(state), **covalent}

    def read(self) -> State:
        """What was started, as the state file says; an empty state where nothing was.

        Raises:
            EmulatorError: The file is damaged, or of another version.
        """
        return self._folder.read()

    # --- the emulator and its deployment ------------------------------------------------------------------------------

    def _start_emulator(self, state: State, say: Say, docker: bool) -> State:
        for service in (state.server, state.emulator):  # the server has the port of the emulator that ended
            if service is not None:
                processes.end(service.identity, patience_s=STOP_PATIENCE_S)
        say("starting the emulator")
        folder, log = self.state_dir / EMULATOR, self.state_dir / LOGS / "emulator.log"
        shutil.rmtree(folder, ignore_errors=True)
        private.folder(folder)
        command = [sys.executable, "-m", "covalent_cirro.emulator", "--port", "0", "--state-dir", str(folder)]
        identity = processes.start(
            [*command, "--docker"] if docker else command,
            log=log,
            environment=self._clean(os.environ),
            folder=folder,
        )
        starting = Service(pid=identity.pid, started=identity.started, url="", log=str(log))
        self._folder.write(State(emulator=starting))
        with self._ended_on_failure(identity):
            announcement = processes.wait_for(
                functools.partial(_read_json, folder / "emulator.json"), identity, log, EMULATOR_START_S, EmulatorError
            )
        ready = replace(starting, url=str(announcement["endpoint_url"]))
        return self._folder.write(State(emulator=ready, region=str(announcement.get("region", REGION))))

    def _put_images(self, state: State, images: Mapping[str, Path]) -> None:
        """Say what is in images (`emulator.http.control_routes`)."""
        assert state.emulator is not None
        body = {name: {"environment": {"PYTHONPATH": str(folder.absolute())}} for name, folder in images.items()}
        asked = urllib.request.Request(  # noqa: S310  (the emulator's own URL)
            f"{state.emulator.url}/_cirro/images",
            json.dumps(body).encode(),
            {"Authorization": self.key.basic},
            method="PUT",
        )
        try:
            with _DIRECTLY.open(asked, timeout=ANSWER_S):
                pass
        except OSError as error:
            raise EmulatorError(
                f"the emulator at {state.emulator.url} does not take the images {', '.join(images)}: {error}. "
                f"Its log is {state.emulator.log}; `cirro local down` and `up` start it anew."
            ) from error

    def _deploy(self, state: State, vcpus: int) -> State:
        from covalent_cirro import deployment

        client = self._client(state, "cloudformation")
        # On-demand instances are additional to Spot ones: this keeps their queue usable, and adds one small instance.
        parameters = {
            "CpuSpotMaxVcpus": vcpus,
            "CpuOnDemandMaxVcpus": ON_DEMAND_VCPUS,
            "MultiNodeMaxVcpus": MULTI_NODE_VCPUS,
            "FargateSpotMaxVcpus": FARGATE_VCPUS,
            "FargateMaxVcpus": FARGATE_VCPUS,
        }
        try:
            done = deployment.deploy(client, DEPLOYMENT, parameters)
        except CirroError:
            raise
        except Exception as error:  # no answer of an AWS service: the emulator itself failed
            assert state.emulator is not None
            log = Path(state.emulator.log)
            raise EmulatorError(
                f"the emulator at {state.emulator.url} could not deploy: {error}. "
                f"The end of {log}:\n{processes.log_end(log)}"
            ) from error
        return replace(state, settings=self._settings(state, done.settings))

    def _settings(self, state: State, given: Mapping[str, str]) -> dict[str, Any]:
        """The executor's settings for a deployment that gives these."""
        from covalent_cirro import deployment

        assert state.emulator is not None
        own = {"endpoint_url": state.emulator.url, "container_image_uri": IMAGE, "time_limit": deployment.TIME_LIMIT_S}
        return {**given, **own}

    def _given(self, state: State) -> dict[str, str]:
        """What the deployment gives now: `cirro deploy` changes it, `cirro destroy` deletes it and not the state.

        Returns:
            The executor's settings in its outputs; nothing where it is not there, or not whole.
        """
        from covalent_cirro import deployment

        try:
            with self._answers(state):
                found = deployment.outputs(self._client(state, "cloudformation"), DEPLOYMENT)
            return deployment.settings_from_outputs(found)
        except (NotFound, StackError):
            return {}

    def _queues(self, state: State) -> list[str]:
        with self._answers(state):
            queues = self._client(state, "batch").describe_job_queues()["jobQueues"]
            return [str(queue["jobQueueName"]) for queue in queues]

    def _jobs(self, state: State) -> dict[str, int]:
        queues = self._queues(state)
        with self._answers(state):
            pages = self._client(state, "batch").get_paginator("list_jobs").paginate
            return {
                status: sum(
                    len(page["jobSummaryList"]) for queue in queues for page in pages(jobQueue=queue, jobStatus=status)
                )
                for status in JOB_STATES
            }

    @contextlib.contextmanager
    def _answers(self, state: State) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except NotFound:
            raise
        except (BotoCoreError, ClientError, AwsError) as error:
            assert state.emulator is not None
            raise EmulatorError(
                f"the emulator at {state.emulator.url} does not answer as it should: {error}. "
                f"Its log is {state.emulator.log}; `cirro local down` and `up` start it anew."
            ) from error

    @property
    def credentials(self) -> Path:
        """File with the key of the emulator, as AWS's SDKs read it."""
        return self.state_dir / EMULATOR / keys.FILE

    @property
    def key(self) -> keys.Key:
        """The access key of the emulator, which must have started.

        Raises:
            EmulatorError: There is none.
        """
        return keys.read(self.credentials)

    def client(self, service: str) -> Any:
        """A boto3 client of the emulated AWS, which must run."""
        return self._client(self.read(), service)

    def _client(self, state: State, service: str) -> Any:
        import boto3

        assert state.emulator is not None
        key = self.key
        make: Any = boto3.client  # typed one overload a service where boto3-stubs is installed
        return make(
            service,
            region_name=state.region,
            endpoint_url=state.emulator.url,
            aws_access_key_id=key.id,
            aws_secret_access_key=key.secret,
        )

    # --- the Covalent server ------------------------------------------------------------------------------------------

    def _start_server(self, state: State) -> State:
        if state.server is not None:
            processes.end(state.server.identity, patience_s=STOP_PATIENCE_S)
        old_port = _port(state.server)
        log = self.state_dir / LOGS / "covalent.log"
        for tries_left in reversed(range(PORT_TRIES)):
            log.unlink(missing_ok=True)
            # Clients that wait for a dispatch of a server that ended find the new one at the same port.
            port = old_port or processes.free_port()
            old_port = 0
            self._write_config(state, port)
            identity = processes.start(
                [sys.executable, "-m", "covalent_cirro.local.covalent_process", str(port)],
                log=log,
                environment={
                    **self._clean(os.environ),
                    **self._aws_environment(state),
                    **covalent_process.server_environment(self.covalent_dir),
                },
                folder=self.covalent_dir,
            )
            service = Service(pid=identity.pid, started=identity.started, url="", log=str(log))
            self._folder.write(replace(state, server=service))
            answers = functools.partial(covalent_process.answers, port)
            try:
                with self._ended_on_failure(identity):
                    processes.wait_for(answers, identity, log, SERVER_START_S, HostError)
            except HostError:
                # Anywhere in the log: a server that ends at once may write more after that.
                if tries_left and "address already in use" in log.read_text(errors="replace"):
                    continue
                raise
            return self._folder.write(replace(state, server=replace(service, url=covalent_process.url_of(port))))
        raise AssertionError("the last try returns or raises")

    def _write_config(self, state: State, port: int) -> None:
        plain_paths.make(self.state_dir / COVALENT)
        given = {name: value for name, value in state.settings.items() if name not in ("endpoint_url", config.IMAGE)}
        covalent_process.write_config(
            self.covalent_dir,
            port=port,
            executors={"cirro": dict(state.settings)},
            # As `cirro deploy` records it: the next one changes what this one wrote.
            further={
                config.OURS: {"stack_name": DEPLOYMENT, "region": state.region, "profile": ""},
                f"{config.OURS}.settings": given,
            },
        )

    # --- processes and their environment ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _ended_on_failure(self, identity: ProcessIdentity) -> Iterator[None]:
        try:
            yield
        except BaseException:
            processes.end(identity, patience_s=STOP_PATIENCE_S)
            raise

    def _clean(self, base: Mapping[str, str]) -> dict[str, str]:
        """``base`` without variables of AWS and Covalent, and with this Python's programs first."""
        kept = {key: value for key, value in base.items() if not key.startswith(("AWS_", "COVALENT_"))}
        kept["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
        return kept

    def _aws_environment(self, state: State) -> dict[str, str]:
        assert state.emulator is not None
        return {
            "AWS_DEFAULT_REGION": state.region,
            "AWS_REGION": state.region,
            "AWS_ENDPOINT_URL": state.emulator.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_SHARED_CREDENTIALS_FILE": str(self.credentials),
            # Without the user's own profiles; the file need not exist.
            "AWS_CONFIG_FILE": str(self.state_dir / "aws-config"),
        }


def _port(server: Service | None) -> int:
    """Port of a Covalent server; 0 where it has none yet."""
    return int(server.url.rpartition(":")[2]) if server is not None and server.url else 0


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
