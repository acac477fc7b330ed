"""``cirro local`` with a real emulator: up, status, exec, down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import tomlkit
from click.testing import Result

from covalent_cirro.covalent_server import config
from covalent_cirro.deployment.plans import PARTS, stack_name
from covalent_cirro.local import covalent_process
from covalent_cirro.local.emulator import keys
from covalent_cirro.local.local_stack import DEPLOYMENT, JOB_STATES, LocalStack
from covalent_cirro.local.state_folder import Service, State, StateFolder
from tests.access import ask

Cirro = Callable[..., Result]
Program = Callable[..., subprocess.CompletedProcess[str]]

PRINT_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"


def client(playground: LocalStack, service: str):  # type: ignore[no-untyped-def]
    """A boto3 client of the emulated AWS."""
    return playground.client(service)


def test_status_says_what_runs(emulated: LocalStack, cirro: Cirro) -> None:
    """The table has the endpoint and the stack; exit code 0."""
    result = cirro("local", "status", "--state-dir", emulated.state_dir)
    assert result.exit_code == 0
    assert str(emulated.status().endpoint_url) in result.output
    assert DEPLOYMENT in result.output


def test_status_for_programs(emulated: LocalStack, cirro: Cirro) -> None:
    """``--json`` gives the executor's settings and a count for each of the seven states."""
    document = json.loads(cirro("local", "status", "--json", "--state-dir", emulated.state_dir).output)
    assert list(document["jobs"]) == list(JOB_STATES)
    assert document["settings"]["endpoint_url"] == document["endpoint_url"]
    assert document["settings"]["s3_bucket_name"]
    assert document["server_url"] is None


def test_up_again_changes_nothing(emulated: LocalStack, cirro: Cirro) -> None:
    """A second ``up`` keeps the process, and says that it runs already."""
    before = emulated.read()
    result = cirro("local", "up", "--state-dir", emulated.state_dir)
    assert result.exit_code == 0
    assert "runs already" in result.output
    assert emulated.read() == before


def test_a_folder_can_stand_for_an_image(emulated: LocalStack, cirro: Cirro, tmp_path: Path) -> None:
    """Its packages are on the path of Python in tasks of that image; also for a local stack that runs already."""
    result = cirro("local", "up", "--image", f"shop={tmp_path}", "--state-dir", emulated.state_dir)
    assert result.exit_code == 0
    images = ask(str(emulated.status().endpoint_url), emulated.key, "images")
    assert images["shop"]["environment"] == {"PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("given", ["shop", "shop=", "=.", "shop=nowhere"])
def test_a_folder_for_an_image_has_to_exist(cirro: Cirro, tmp_path: Path, given: str) -> None:
    """Nothing is started otherwise."""
    result = cirro("local", "up", "--image", given, "--state-dir", tmp_path / "state")
    assert result.exit_code == 2
    assert "NAME=FOLDER" in result.output
    assert not (tmp_path / "state").exists()


def test_a_deployment_is_made_with_cloudformation(emulated: LocalStack) -> None:
    """What ``up`` made are the stacks of a deployment, whose queues take jobs."""
    stacks = client(emulated, "cloudformation").describe_stacks()["Stacks"]
    assert {(each["StackName"], each["StackStatus"]) for each in stacks} == {
        (stack_name(DEPLOYMENT, part), "CREATE_COMPLETE") for part in PARTS
    }
    queues = client(emulated, "batch").describe_job_queues()["jobQueues"]
    assert {"ENABLED"} == {queue["state"] for queue in queues}


def test_every_kind_of_electron_has_a_queue(emulated: LocalStack) -> None:
    """Several machines and Fargate, which a deployment has by parameter, can be tried on a laptop."""
    settings = emulated.status().settings
    queues = {queue["jobQueueName"] for queue in client(emulated, "batch").describe_job_queues()["jobQueues"]}
    assert {settings["batch_queue"], settings["batch_multi_node_queue"], settings["batch_fargate_queue"]} <= queues


def test_an_estimate_for_several_machines_is_of_their_queue(emulated: LocalStack, program: Program) -> None:
    """AWS Batch runs no multi-node job on Spot, whatever the queue of other electrons has."""
    shown = program("estimate", "--minutes", 10, "--num-nodes", 2, CIRRO_STATE_DIR=str(emulated.state_dir))
    assert "on-demand" in shown.stdout
    assert " spot" not in shown.stdout


def test_exec_points_at_the_local_stack(emulated: LocalStack, program: Program) -> None:
    """The command sees the emulator as its AWS, and nothing of the caller's account, profile or Covalent."""
    result = program(
        *("local", "exec", "--state-dir", emulated.state_dir, "--", "python", "-c", PRINT_ENVIRONMENT),
        AWS_PROFILE="production",
        AWS_SESSION_TOKEN="secret",
        COVALENT_DATABASE="/somewhere/else.sqlite",
        CIRRO_TEST_KEPT="yes",
    )
    assert result.returncode == 0, result.stderr
    environment = json.loads(result.stdout)
    assert environment["AWS_ENDPOINT_URL"] == emulated.status().endpoint_url
    assert keys.read(Path(environment["AWS_SHARED_CREDENTIALS_FILE"])) == emulated.key
    assert environment["CIRRO_TEST_KEPT"] == "yes"
    assert environment.keys().isdisjoint(
        {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN", "COVALENT_DATABASE"}
    )


def test_exec_hands_on_arguments_and_exit_code(emulated: LocalStack, program: Program) -> None:
    """Options of the command stay its own, and its exit code is that of ``exec``."""
    script = "import sys; print(sys.argv[1:]); sys.exit(42)"
    result = program(
        *("local", "exec", "--state-dir", emulated.state_dir, "--", "python", "-c", script, "--json", "-h", "--", "x")
    )
    assert result.returncode == 42
    assert result.stdout == "['--json', '-h', '--', 'x']\n"


def test_exec_of_a_program_that_does_not_exist(emulated: LocalStack, cirro: Cirro) -> None:
    """Exit code 127, as a shell has it."""
    result = cirro("local", "exec", "--state-dir", emulated.state_dir, "--", "no-such-program")
    assert result.exit_code == 127
    assert "no-such-program" in result.stderr


def test_two_folders_never_meet(emulated: LocalStack, tmp_path: Path, cirro: Cirro) -> None:
    """A second folder has an emulator of its own, and ending it leaves the first one alone."""
    other = LocalStack(tmp_path / "other")
    try:
        assert cirro("local", "up", "--state-dir", other.state_dir).exit_code == 0
        assert other.status().endpoint_url != emulated.status().endpoint_url
        client(other, "s3").create_bucket(Bucket="only-in-the-other")
        buckets = [bucket["Name"] for bucket in client(emulated, "s3").list_buckets()["Buckets"]]
        assert "only-in-the-other" not in buckets
        assert cirro("local", "down", "--state-dir", other.state_dir).exit_code == 0
    finally:
        other.down()
    assert not other.state_dir.exists()
    assert emulated.status().endpoint_url is not None


def test_a_deployment_that_is_changed_or_destroyed_is_followed(tmp_path: Path, cirro: Cirro) -> None:
    """`cirro deploy` may change the names of its queues, `cirro destroy` deletes it: both know nothing of the state."""
    playground = LocalStack(tmp_path / "state")

    def run(*arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", "from covalent_cirro.cli import main; main()", *arguments, "--yes"],
            env=playground.environment(os.environ),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    try:
        playground.up(vcpus=2)
        emulator = playground.read().emulator
        run("deploy", "--parameter", "FairShare=true")
        file = config.config_path(playground.environment({}))
        for settings in (playground.status().settings, tomlkit.parse(file.read_text())["executors"]["cirro"]):  # type: ignore[index]
            assert (settings["batch_queue"], settings["share_identifier"]) == ("cirro-cpu-fair", "common")  # type: ignore[index]
        assert playground.up(vcpus=2).settings["batch_queue"] == "cirro-cpu-fair"
        run("destroy")
        gone = playground.status()
        assert (gone.deployment, dict(gone.settings)) == (None, {})
        shown = cirro("local", "status", "--state-dir", playground.state_dir)
        assert "not made" in shown.output
        again = playground.up(vcpus=2)
        assert again.deployment == DEPLOYMENT
        assert again.settings["batch_queue"]
        assert playground.read().emulator == emulator
    finally:
        playground.down()


def test_down_ends_the_jobs_too(tmp_path: Path, cirro: Cirro) -> None:
    """After ``down`` neither the emulator nor the process of a job that ran is left, and the folder is gone."""
    playground = LocalStack(tmp_path / "state")
    try:
        playground.up(vcpus=2)
        pid_file = tmp_path / "pid"
        batch = client(playground, "batch")
        definition = batch.register_job_definition(
            jobDefinitionName="sleeper",
            type="container",
            containerProperties={
                "image": "public.ecr.aws/docker/library/python:3.11",
                "command": ["sh", "-c", f"trap '' TERM; echo $$ > {pid_file}; while true; do sleep 0.2; done"],
                "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "512"}],
            },
        )
        batch.submit_job(
            jobName="sleeper",
            jobQueue=playground.status().settings["batch_queue"],
            jobDefinition=definition["jobDefinitionArn"],
        )
        pid = wait_for(lambda: int(pid_file.read_text()) if pid_file.exists() and pid_file.read_text() else None)
        emulator = playground.read().emulator
        assert emulator is not None
        assert playground.status().jobs["RUNNING"] == 1
        assert cirro("local", "down", "--state-dir", playground.state_dir).exit_code == 0
        assert [gone for gone in (pid, emulator.pid) if _runs(gone)] == []
        assert not playground.state_dir.exists()
    finally:
        playground.down()


def test_up_after_the_emulator_was_killed(tmp_path: Path) -> None:
    """``status`` sees that it is gone, and ``up`` starts another with a fresh stack."""
    playground = LocalStack(tmp_path / "state")
    try:
        playground.up(vcpus=2)
        emulator = playground.read().emulator
        assert emulator is not None
        psutil.Process(emulator.pid).kill()
        wait_for(lambda: playground.status().endpoint_url is None)
        status = playground.up(vcpus=2)
        assert status.deployment == DEPLOYMENT
        assert status.endpoint_url is not None
        assert ask(status.endpoint_url, playground.key, "health") == {"status": "ok"}
    finally:
        playground.down()


def wait_for(probe, limit_s: float = 90):  # type: ignore[no-untyped-def]
    """What ``probe`` gives once that is true."""
    deadline = time.monotonic() + limit_s
    while not (found := probe()):
        if time.monotonic() > deadline:
            pytest.fail(f"not seen within {limit_s} s")
        time.sleep(0.05)
    return found


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# --- other commands use the local stack -------------------------------------------------------------------------------


@pytest.fixture
def inside(emulated: LocalStack, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder below that of the local stack is the current folder."""
    below = emulated.state_dir.parent / "scripts"
    below.mkdir(exist_ok=True)
    monkeypatch.chdir(below)
    monkeypatch.delenv("CIRRO_STATE_DIR")
    return below


def test_a_command_uses_the_local_stack_above_and_says_so(
    inside: Path, emulated: LocalStack, cirro: Cirro, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line on stderr, also with keys in the environment; what it changes there ends with it."""
    monkeypatch.setenv("AWS_PROFILE", "production")
    before = dict(os.environ)
    result = cirro("status", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["deployed"]
    assert result.stderr.splitlines() == [
        f"This uses the local stack in {emulated.state_dir}, not AWS_PROFILE='production'; --aws uses your own AWS."
    ]
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--aws",), "without --aws, this command uses that"),
        (("--region", "eu-west-1"), "without --region, this command uses that"),
        (("--profile", "nobody"), "without --profile, this command uses that"),
    ],
)
def test_what_names_an_account_goes_past_the_local_stack(
    inside: Path, emulated: LocalStack, cirro: Cirro, options: tuple[str, ...], words: str
) -> None:
    """Nothing is said about the local stack until credentials are missing."""
    result = cirro("status", *options)
    assert result.exit_code == 1
    assert "This uses" not in result.stderr
    assert f"A local stack runs in {emulated.state_dir}: {words}" in result.stderr


def test_an_endpoint_in_the_environment_goes_past_it(
    inside: Path, cirro: Cirro, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in `cirro local exec`; with ``--aws`` the endpoint is told."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:4566")
    result = cirro("status", "--aws")
    assert result.exit_code == 1
    assert "AWS_ENDPOINT_URL='localhost:4566' is set" in result.stderr
    assert "local stack" not in result.stderr


def test_who_has_no_account_is_told_of_the_local_stack(
    cirro: Cirro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not who has named one: a profile that does not work is to be mended."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COVALENT_CONFIG_DIR", str(tmp_path))
    assert "Without an AWS account: `cirro local up --server`" in cirro("status").stderr
    assert "Without an AWS account: `cirro local up --server`" in cirro("doctor").stdout
    assert "cirro local up" not in cirro("status", "--aws").stderr
    (tmp_path / "aws-config").write_text("[profile lab]\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    assert "cirro local up" not in cirro("status").stderr


def test_plan_and_question_name_the_local_stack(
    inside: Path, cirro: Cirro, emulated: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what costs money or deletes."""
    monkeypatch.chdir(inside.parent)
    plan = cirro("deploy", "--parameter", "CpuSpotMaxVcpus=3")
    assert (
        "What will change in the deployment 'cirro' of the local stack in .cirro (emulated, no costs):" in plan.stdout
    )
    holdings = cirro("destroy")
    assert "What will be deleted of the deployment 'cirro' of the local stack in .cirro (" in holdings.stdout
    assert plan.exit_code == holdings.exit_code == 2


def test_a_deployment_in_a_local_stack_leaves_the_users_config_alone(emulated: LocalStack, program: Program) -> None:
    """The local stack has a config of its own, also without a server."""
    own = Path(os.environ["COVALENT_CONFIG_DIR"]) / "covalent.conf"
    before = own.read_text()
    done = program("deploy", "--yes", CIRRO_STATE_DIR=str(emulated.state_dir))
    assert done.returncode == 0, done.stderr
    assert own.read_text() == before
    assert config.config_path(emulated.environment({})).read_text().count('stack_name = "cirro"') == 1


def test_a_command_for_the_server_uses_that_of_the_local_stack(emulated: LocalStack, program: Program) -> None:
    """Covalent reads its config when it is imported: here, one whose address nobody listens at."""
    done = program("resume", CIRRO_STATE_DIR=str(emulated.state_dir))
    assert done.returncode == 1
    assert f"http://127.0.0.1:{covalent_process.CLOSED_PORT}" in done.stderr


def test_after_a_local_stack_has_ended_nothing_is_done_unasked(
    cirro: Cirro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be done to a real account. Questions are still asked, which name it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CIRRO_STATE_DIR")
    place = StateFolder(tmp_path / ".cirro")
    with place.locked():
        place.write(State(emulator=Service(pid=os.getpid(), started=1.0, url="http://127.0.0.1:1", log="")))
    refused = cirro("destroy", "--yes")
    assert refused.exit_code == 2
    assert "the local stack in .cirro does not run" in refused.stderr
    for options, is_told in ((("--yes", "--aws"), False), ((), True)):
        passed = cirro("destroy", *options)
        assert passed.exit_code == 1
        assert "found no credentials" in passed.stderr
        assert ("The local stack in .cirro does not run: this uses your own AWS." in passed.stderr) is is_told


def test_a_shell_is_pointed_at_the_local_stack(inside: Path, emulated: LocalStack, program: Program) -> None:
    """By what ``env`` prints: the variables of ``exec``, and none of the user's account."""
    done = program("local", "env", AWS_PROFILE="production", COVALENT_DATABASE="it's mine")
    assert done.returncode == 0, done.stderr
    shell = subprocess.run(
        ["sh", "-euc", f"{done.stdout}\nenv"],
        env={**os.environ, "AWS_PROFILE": "production", "COVALENT_DATABASE": "it's mine"},
        capture_output=True,
        text=True,
        check=True,
    )
    there = dict(line.partition("=")[::2] for line in shell.stdout.splitlines())
    wanted = emulated.environment(os.environ)
    for start in ("AWS_", "COVALENT_"):
        assert {key: value for key, value in there.items() if key.startswith(start)} == {
            key: value for key, value in wanted.items() if key.startswith(start)
        }
    assert there["PATH"] == os.environ["PATH"]


def test_down_below_a_local_stack_names_it(inside: Path, emulated: LocalStack, cirro: Cirro) -> None:
    """It ends nothing that another folder has."""
    result = cirro("local", "down")
    assert result.exit_code == 0
    assert f"local down --state-dir {emulated.state_dir}" in result.stdout
    assert cirro("local", "status").exit_code == 0


def test_the_doctor_finds_no_failure_in_a_fresh_one(emulated: LocalStack, program: Program) -> None:
    """But that no Covalent server runs."""
    done = program("doctor", "--json", CIRRO_STATE_DIR=str(emulated.state_dir))
    found = json.loads(done.stdout)["findings"]
    assert {each["id"] for each in found if each["level"] == "failure"} <= {"server"}
    assert {each["id"] for each in found if each["level"] == "warning"} <= {"server"}
