"""Jobs as containers of their real image, on whatever Docker engine answers; electrons in the image of `docker/`."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from covalent._shared_files import TaskRuntimeError

from covalent_cirro import CirroBatchExecutor, deployment
from covalent_cirro.contract import documents, failure_kinds
from covalent_cirro.deployment.images import build
from covalent_cirro.deployment.images.docker_engine import DockerEngine
from covalent_cirro.deployment.images.recipe import Recipe
from covalent_cirro.errors import EmulatorError, ImageError
from covalent_cirro.local.emulator import Emulator, Timing
from covalent_cirro.local.emulator.attempts.container_runtime import LABEL, ContainerRuntime, options
from covalent_cirro.local.emulator.attempts.runtime import OUT_OF_MEMORY, AttemptSpec
from covalent_cirro.local.local_stack import LocalStack
from covalent_cirro.local.processes import free_port
from tests.access import PROFILE, credentials_file
from tests.emulator.conftest import SCALE, Aws, poll
from tests.emulator.web_services import PROGRAM, Web, load

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
"""Of the image too: another minor version does not read what this one pickled."""
BASE = f"python:{PYTHON}-slim-bookworm"
IMAGE = f"cirro-runner:test-{PYTHON}"

cloudpickle.register_pickle_by_value(sys.modules[__name__])
needs_engine = pytest.mark.container
_nodes = itertools.count()


# --- without an engine ------------------------------------------------------------------------------------------------


def test_what_a_container_is_asked_for() -> None:
    """Memory without swap, shared memory, host network, user, limits, GPUs, mounts."""
    spec = AttemptSpec(
        task_id="t",
        image="image",
        command=["a", "b"],
        environment={"A": "b"},
        memory_mib=512,
        shm_mib=128,
        gpus=(0, 2),
        options={
            "user": "nobody",
            "privileged": False,
            "linuxParameters": {
                "initProcessEnabled": True,
                "tmpfs": [{"containerPath": "/fast", "size": 64, "mountOptions": ["noexec"]}],
            },
            "ulimits": [{"name": "memlock", "softLimit": -1, "hardLimit": -1}],
            "volumes": [{"name": "data", "host": {"sourcePath": "/srv/data"}}, {"name": "space"}],
            "mountPoints": [
                {"sourceVolume": "data", "containerPath": "/data", "readOnly": True},
                {"sourceVolume": "space", "containerPath": "/space"},
            ],
        },
        folders={"data": Path("/srv/data")},
    )
    asked = options(spec)
    (gpus,) = asked.pop("device_requests")
    (limit,) = asked.pop("ulimits")
    assert gpus["DeviceIDs"] == ["0", "2"]
    assert (limit["Name"], limit["Soft"]) == ("memlock", -1)
    assert asked.pop("log_config")["Type"] == "none"
    assert asked == {
        "command": ["a", "b"],
        "environment": {"A": "b"},
        "network_mode": "host",
        "mem_limit": "512m",
        "memswap_limit": "512m",
        "shm_size": "128m",
        "labels": {"covalent-cirro-emulator": "t"},
        "init": True,
        "privileged": False,
        "read_only": False,
        "user": "nobody",
        "volumes": ["/srv/data:/data:ro", "/space"],
        "tmpfs": {"/fast": "size=64m,noexec"},
        "detach": True,
    }


def test_no_engine_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(EmulatorError, match="no Docker engine answers"):
        ContainerRuntime.connect()


def test_the_local_stack_needs_an_engine_for_containers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``cirro local up --docker`` without one says so, instead of running jobs as processes."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    playground = LocalStack(tmp_path / "state")
    try:
        with pytest.raises(EmulatorError, match="no Docker engine answers"):
            playground.up(docker=True)
    finally:
        playground.down()


# --- with one ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image(engine: Any) -> str:
    """The runner's image, made from `docker/Dockerfile` and this source tree."""
    with DockerEngine.connect() as ours:
        try:
            ours.pull(BASE, "linux/amd64", print)
        except ImageError as error:
            pytest.skip(str(error))
        built = build.build(ours, Recipe(), print)
        ours.tag(built.reference, *IMAGE.split(":"))
    return IMAGE


@pytest.fixture(scope="module")
def batch(engine: Any, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """An emulator with short times whose jobs are containers."""
    folder = tmp_path_factory.mktemp("state")
    with Emulator(state_dir=folder, docker=True, timing=Timing(scale=SCALE)) as emulator:
        yield Aws(emulator)


def containers_of(engine: Any, task_arn: str) -> list[Any]:
    """The containers of a job's attempt, whatever their state."""
    label = f"{LABEL}={task_arn.rpartition('/')[2]}"
    found = engine.containers.list(all=True, filters={"label": label}, sparse=True)
    return list(found)


@needs_engine
def test_a_job_runs_in_its_image(batch: Aws) -> None:
    """Its exit code, its variables, its user's folder, its lines in CloudWatch; and then it is removed."""
    script = "echo hi; echo $COLOUR in $PWD >&2; touch here && echo $AWS_BATCH_JOB_ID; echo $(id -u); exit 5"
    definition = batch.definition("sh", "-c", script, image=IMAGE, environment=[{"name": "COLOUR", "value": "blue"}])
    job = batch.done(batch.submit(definition=definition))
    assert job["status"] == "FAILED"
    assert job["container"]["exitCode"] == 5
    assert job["statusReason"] == "Essential container in task exited"
    assert "reason" not in job["container"]
    assert sorted(batch.log(job)) == sorted(["hi", "blue in /home/cirro", job["jobId"], "1000"])


@needs_engine
def test_a_service_runs_in_its_image(batch: Aws) -> None:
    """Its tasks answer behind a balancer, and an update replaces them without a failed answer."""
    web = Web(batch)
    container = {"image": IMAGE, "entryPoint": ["python", "-c"], "command": [PROGRAM]}
    web.create(web.define(container=container))
    web.settle()
    with load(web.address) as answers:
        web.update(taskDefinition=web.define("2", container=container))
        web.settle()
        seen = len(answers)
        poll(lambda: len(answers) > seen + 20, "answers after the update")
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers[seen + 5 :]} == {"2"}
    assert {each["containers"][0]["exitCode"] for each in web.tasks("STOPPED")} == {0}
    web.delete()


MEETING = """
import os, socket, time
port, main = int(os.environ["PORT"]), os.environ.get("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS")
if main is None:
    print(socket.create_server(("", port)).accept()[0].recv(99).decode(), flush=True)
while main is not None:
    try:
        socket.create_connection((main, port)).sendall(b"node " + os.environ["AWS_BATCH_JOB_NODE_INDEX"].encode())
        break
    except ConnectionRefusedError:
        time.sleep(0.05)
"""


@needs_engine
def test_nodes_of_a_job_reach_one_another(batch: Aws) -> None:
    """By the address of the main node, which AWS's variable has."""
    container = {
        "image": IMAGE,
        "command": ["python", "-c", MEETING],
        "environment": [{"name": "PORT", "value": str(free_port())}],
        "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "256"}],
    }
    ranges = [{"targetNodes": "0:", "container": container}]
    made = batch.batch.register_job_definition(
        jobDefinitionName=batch.name("nodes"),
        type="multinode",
        nodeProperties={"numNodes": 2, "mainNode": 0, "nodeRangeProperties": ranges},
    )
    job_id = batch.submit(definition=made["jobDefinitionArn"])
    assert batch.done(job_id)["status"] == "SUCCEEDED"
    assert batch.log(batch.job(f"{job_id}#0")) == ["node 1"]


@needs_engine
def test_no_container_stays(batch: Aws, engine: Any) -> None:
    """One that ended is removed."""
    job_id = batch.submit(definition=batch.definition("sleep", "0.5", image=IMAGE))
    task_arn = batch.reach(job_id, "RUNNING")["container"]["taskArn"]
    assert len(containers_of(engine, task_arn)) == 1
    batch.done(job_id)
    assert containers_of(engine, task_arn) == []


@needs_engine
def test_all_output_arrives(batch: Aws) -> None:
    """Many lines in their order, one that is long, and one without an end."""
    script = "seq 5000; head -c 100000 /dev/zero | tr '\\0' x; echo; printf end"
    job = batch.done(batch.submit(definition=batch.definition("sh", "-c", script, image=IMAGE)))
    stream = job["container"]["logStreamName"]
    pages: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = batch.logs.get_log_events(
            logGroupName="/aws/batch/job", logStreamName=stream, startFromHead=True, limit=1000, **token
        )
        pages += [event["message"] for event in page["events"]]
        if not page["events"]:
            break
        token = {"nextToken": page["nextForwardToken"]}
    assert pages == [*map(str, range(1, 5001)), "x" * 100_000, "end"]


@needs_engine
@pytest.mark.parametrize("wait", ["", "import time; time.sleep(0.5); "], ids=["at once", "later"])
def test_more_memory_than_asked_for(batch: Aws, wait: str) -> None:
    """137 and the reason in ECS's words, however early it happens."""
    script = f"{wait}held = bytearray(256 << 20)"
    job = batch.done(batch.submit(definition=batch.definition("python", "-c", script, image=IMAGE, memory=64)))
    assert job["container"]["exitCode"] == 137
    assert job["container"]["reason"] == OUT_OF_MEMORY == "OutOfMemoryError: Container killed due to memory usage"


@needs_engine
def test_137_is_not_always_memory(batch: Aws) -> None:
    """Without the kernel's count there is no such reason."""
    job = batch.done(batch.submit(definition=batch.definition("sh", "-c", "exit 137", image=IMAGE)))
    assert job["container"]["exitCode"] == 137
    assert "reason" not in job["container"]


@needs_engine
def test_terminate_is_sigterm_then_sigkill(batch: Aws, poll: Any) -> None:
    """The process gets the first, and runs until the grace period is over."""
    script = "trap 'echo asked' TERM; echo ready; while true; do sleep 0.1; done"
    job_id = batch.submit(definition=batch.definition("sh", "-c", script, image=IMAGE))
    job = batch.reach(job_id, "RUNNING")
    poll(lambda: batch.log(job) == ["ready"], "the first line")
    batch.batch.terminate_job(jobId=job_id, reason="enough")
    job = batch.done(job_id)
    assert job["statusReason"] == "enough"
    assert job["container"]["exitCode"] == 137
    assert batch.log(job) == ["ready", "asked"]


@needs_engine
def test_a_job_may_heed_sigterm(batch: Aws, poll: Any) -> None:
    """Then its own exit code counts."""
    script = "trap 'echo bye; exit 3' TERM; echo ready; while true; do sleep 0.1; done"
    job_id = batch.submit(definition=batch.definition("sh", "-c", script, image=IMAGE))
    job = batch.reach(job_id, "RUNNING")
    poll(lambda: batch.log(job) == ["ready"], "the first line")
    batch.batch.terminate_job(jobId=job_id, reason="enough")
    job = batch.done(job_id)
    assert job["container"]["exitCode"] == 3
    assert batch.log(job) == ["ready", "bye"]


@needs_engine
def test_shared_memory_is_as_large_as_asked(batch: Aws) -> None:
    """In MiB."""
    given = {"sharedMemorySize": 77}
    definition = batch.definition("sh", "-c", "df -m --output=size /dev/shm", image=IMAGE, linuxParameters=given)
    job = batch.done(batch.submit(definition=definition))
    assert batch.log(job)[-1].strip() == "77"


@needs_engine
def test_an_image_that_does_not_exist(batch: Aws) -> None:
    """Cannot be pulled, and the engine's words say why."""
    missing = "127.0.0.1:1/nothing:1"
    job = batch.done(batch.submit(definition=batch.definition("true", image=missing)))
    assert job["statusReason"] == "Task failed to start"
    assert job["container"]["reason"].startswith("CannotPullContainerError: Error response from daemon: ")
    assert "127.0.0.1:1" in job["container"]["reason"]


@needs_engine
def test_a_command_that_does_not_exist(batch: Aws) -> None:
    """Cannot be started, where the image has no entrypoint that would look for it."""
    job = batch.done(batch.submit(definition=batch.definition("no-such-program", image=BASE)))
    assert job["container"]["reason"].startswith("CannotStartContainerError: Error response from daemon: ")
    assert "no-such-program" in job["container"]["reason"]


@needs_engine
def test_a_lost_emulator_leaves_no_container(engine: Any, image: str, tmp_path: Path, poll: Any) -> None:
    """Killed, it can do nothing itself."""
    playground = LocalStack(tmp_path / "state")
    try:
        playground.up(docker=True, vcpus=2)
        task_arn = submit_sleeper(playground)
        assert len(containers_of(engine, task_arn)) == 1
        running = playground.read().emulator
        assert running is not None
        os.kill(running.pid, signal.SIGKILL)
        poll(lambda: not containers_of(engine, task_arn), "the end of the container")
    finally:
        playground.down()


@needs_engine
def test_the_end_of_the_local_stack_is_the_end_of_its_containers(engine: Any, image: str, tmp_path: Path) -> None:
    """``cirro local up --docker``, and ``down`` with a job that runs."""
    state = ("--state-dir", str(tmp_path / "state"))
    cirro = [sys.executable, "-c", "from covalent_cirro.cli import main; main()", "local"]
    try:
        up = subprocess.run([*cirro, "up", "--docker", "--vcpus", "2", *state], capture_output=True, text=True)
        assert up.returncode == 0, up.stderr
        task_arn = submit_sleeper(LocalStack(tmp_path / "state"))
        assert len(containers_of(engine, task_arn)) == 1
    finally:
        down = subprocess.run([*cirro, "down", *state], capture_output=True, text=True)
    assert down.returncode == 0, down.stderr
    assert containers_of(engine, task_arn) == []


def submit_sleeper(playground: LocalStack) -> str:
    """A job of a local stack that runs for long; the ARN of its attempt's task."""
    state = playground.read()
    client = playground.client("batch")
    definition = client.register_job_definition(
        jobDefinitionName="sleeper",
        type="container",
        containerProperties={
            "image": IMAGE,
            "command": ["sleep", "600"],
            "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "64"}],
        },
    )["jobDefinitionArn"]
    submitted = client.submit_job(jobName="sleeper", jobQueue=state.settings["batch_queue"], jobDefinition=definition)
    while (job := client.describe_jobs(jobs=[submitted["jobId"]])["jobs"][0])["status"] != "RUNNING":
        assert job["status"] != "FAILED", job
        time.sleep(0.05)
    return str(job["container"]["taskArn"])


# --- electrons --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def account(
    engine: Any, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Emulator, dict[str, Any]]]:
    """An emulator with a deployment, whose jobs are containers, and options of executors for it."""
    folder = tmp_path_factory.mktemp("account")
    with Emulator(state_dir=folder / "emulator", docker=True) as emulator:
        deployed = deployment.deploy(emulator.client("cloudformation"), parameters={"SharedFileSystem": "true"})
        yield (
            emulator,
            {
                **deployed.settings,
                "endpoint_url": emulator.endpoint_url,
                "credentials": credentials_file(folder / "credentials", emulator.key),
                "profile": PROFILE,
                "container_image_uri": image,
                "vcpu": 1,
                "memory": 0.5,
                "cache_dir": str(folder / "cache"),
            },
        )


@pytest.fixture
def executor(account: tuple[Emulator, dict[str, Any]]) -> Callable[..., CirroBatchExecutor]:
    """Makes executors for the account; options may be overridden."""
    return lambda **given: CirroBatchExecutor(**{**account[1], **given})


@pytest.fixture
def metadata() -> dict[str, Any]:
    """An electron's place in a dispatch."""
    return {"dispatch_id": "containers", "node_id": next(_nodes)}


@needs_engine
async def test_an_electron_runs_in_the_runners_image(
    executor: Callable[..., CirroBatchExecutor], metadata: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Not as root, without Covalent, with the shared memory of the executor's default; its result comes back."""

    def look(data: bytes) -> dict[str, Any]:
        import importlib.util
        import os
        import shutil
        import sys

        print("looking around")
        return {
            "user": os.getuid(),
            "python": sys.executable,
            "covalent": importlib.util.find_spec("covalent") is not None,
            "shared": shutil.disk_usage("/dev/shm").total >> 20,
            "data": data[::-1],
        }

    noise = os.urandom(300_000)
    made = executor(shared_memory_gb=0.125)
    assert await made.run(look, [noise], {}, metadata) == {
        "user": 1000,
        "python": "/usr/local/bin/python",
        "covalent": False,
        "shared": 128,
        "data": noise[::-1],
    }
    assert "looking around" in capsys.readouterr().out


@needs_engine
async def test_an_electron_that_is_killed_for_memory_says_so(
    executor: Callable[..., CirroBatchExecutor], metadata: dict[str, Any], account: tuple[Emulator, dict[str, Any]]
) -> None:
    """The runner, which lives, knows it from the kernel's count."""

    def fill() -> int:
        return len(bytearray(1 << 30))

    with pytest.raises(TaskRuntimeError, match=re.compile("memory", re.IGNORECASE)):
        await executor(memory=0.25).run(fill, [], {}, metadata)
    emulator, settings = account
    s3, bucket = emulator.client("s3"), settings["s3_bucket_name"]
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    (key,) = [key for key in keys if f"/containers/{metadata['node_id']}" in key and key.endswith("outcome.json")]
    outcome = documents.parse_outcome(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    (result,) = outcome.results
    assert result.failure is not None
    assert result.failure.kind == failure_kinds.Kind.OUT_OF_MEMORY
    assert outcome.usage.memory_limit_bytes == 256 << 20


@needs_engine
async def test_an_electron_whose_image_is_missing_names_it(
    executor: Callable[..., CirroBatchExecutor], metadata: dict[str, Any]
) -> None:
    """And what to look at."""
    with pytest.raises(TaskRuntimeError, match=r"registry of its image.*127\.0\.0\.1:1/nothing:1"):
        await executor(container_image_uri="127.0.0.1:1/nothing:1").run(len, ["abc"], {}, metadata)


def look_at_properties() -> dict[str, Any]:
    """An electron that tells what its container has of ``job_properties``."""
    import os
    import shutil
    import tempfile

    written = []
    for folder in ("/usr/local", "/home/cirro", tempfile.gettempdir()):
        try:
            with tempfile.NamedTemporaryFile(dir=folder):
                written.append(folder)
        except OSError:
            continue
    return {
        "writable": written,
        "tmp": shutil.disk_usage("/tmp").total >> 20,
        "user": os.getuid(),
    }


@needs_engine
async def test_an_electron_runs_with_a_read_only_root(
    executor: Callable[..., CirroBatchExecutor], metadata: dict[str, Any]
) -> None:
    """Runner and electron write into a tmpfs at /tmp, as another user than the image's."""
    properties = {
        "readonlyRootFilesystem": True,
        "user": "1234",
        "linuxParameters": {"tmpfs": [{"containerPath": "/tmp", "size": 64, "mountOptions": ["mode=1777"]}]},
    }
    seen = await executor(job_properties=properties).run(look_at_properties, [], {}, metadata)
    assert seen == {"writable": ["/tmp"], "tmp": 64, "user": 1234}


@needs_engine
async def test_electrons_share_files_at_shared(
    executor: Callable[..., CirroBatchExecutor], metadata: dict[str, Any]
) -> None:
    """What one wrote, another reads; the folder is where the deployment's option says."""

    def write(text: str) -> str:
        import pathlib

        pathlib.Path("/shared/note").write_text(text)
        return text

    def read() -> tuple[str, str]:
        import os
        import pathlib

        return os.environ["CIRRO_SHARED_FILES"], pathlib.Path("/shared/note").read_text()

    await executor().run(write, ["from another machine"], {}, metadata)
    assert await executor().run(read, [], {}, {**metadata, "node_id": next(_nodes)}) == (
        "/shared",
        "from another machine",
    )
