"""``cirro serve update`` while requests come in: a new model takes over, a broken one goes back, no answer fails.

Service, load balancer and tasks are real; the service is the recommender's. Tasks have the rights of their role only,
and who calls ``cirro serve`` those that infra/README.md lists.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from covalent_cirro import deployment
from covalent_cirro.aws.sessions import Access
from covalent_cirro.cli import main
from covalent_cirro.local.emulator import Emulator, Timing
from covalent_cirro.local.emulator.attempts.runtime import ImageConfig
from covalent_cirro.local.emulator.keys import Key
from covalent_cirro.models.model_objects import BucketObjects
from covalent_cirro.models.model_registry import ModelRegistry
from tests import serving_steps
from tests.access import control, variables
from tests.emulator.conftest import poll
from tests.serving_steps import Cirro, Done
from tests.unit.test_serving_rights import POLICY

pytestmark = pytest.mark.timeout(600)

SERVICE = Path(__file__).parents[2] / "examples" / "recommender" / "service"


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator that checks rights, and whose tasks can be the recommender's service."""
    images = {"recommender": ImageConfig(environment={"PYTHONPATH": str(SERVICE)})}
    state = tmp_path_factory.mktemp("emulator")
    with Emulator(state_dir=state, timing=Timing(scale=0.05), images=images, iam=True) as running:
        yield running


@pytest.fixture(scope="module")
def terminal(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """This process as an administrator's terminal, with the emulator as its AWS."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "COVALENT_"))]:
            patch.delenv(name)
        for name, value in {
            "AWS_ENDPOINT_URL": emulator.endpoint_url,
            **variables(emulator.key),
            "AWS_DEFAULT_REGION": emulator.region,
            "AWS_CONFIG_FILE": str(folder / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "COVALENT_CONFIG_DIR": str(folder / "covalent"),
        }.items():
            patch.setenv(name, value)
        yield patch


@pytest.fixture(scope="module")
def registry(terminal: pytest.MonkeyPatch, emulator: Emulator) -> ModelRegistry:
    """The models of a deployment."""
    machines = ("--parameter", "GpuSpotMaxVcpus=0", "--parameter", "GpuOnDemandMaxVcpus=0")
    done = CliRunner().invoke(main, ["deploy", "--yes", *machines])
    assert done.exit_code == 0, done.output
    found = deployment.outputs(emulator.client("cloudformation"), "cirro")
    access = Access(profile=None, credentials=None, region=None, endpoint_url=None)
    return ModelRegistry(BucketObjects(access, found["S3BucketName"]), found["S3BucketName"], f"{found['S3Prefix']}/")


@pytest.fixture(scope="module")
def called(terminal: pytest.MonkeyPatch, emulator: Emulator) -> Cirro:
    """Calls ``cirro`` in this process, as a user who has the rights of infra/README.md and no others."""
    iam = emulator.client("iam")
    iam.create_user(UserName="ada")
    arn = iam.create_policy(PolicyName="serving", PolicyDocument=json.dumps(POLICY))["Policy"]["Arn"]
    iam.attach_user_policy(UserName="ada", PolicyArn=arn)
    made = iam.create_access_key(UserName="ada")["AccessKey"]
    key = Key(made["AccessKeyId"], made["SecretAccessKey"])

    def call(*arguments: object) -> Done:
        with terminal.context() as patch:
            for name, value in variables(key).items():
                patch.setenv(name, value)
            done = CliRunner().invoke(main, [str(each) for each in arguments])
        return Done(done.exit_code, done.stdout, done.output)

    return call


@pytest.fixture(scope="module")
def url(registry: ModelRegistry, called: Cirro) -> Iterator[str]:
    """Where a service with a first model answers, of which nothing is left in the end."""
    yield str(serving_steps.deploy(called, registry, "127.0.0.0/8")["url"])
    serving_steps.destroy(called)


def test_a_new_model_takes_over_without_a_failed_answer(called: Cirro, registry: ModelRegistry, url: str) -> None:
    """Both versions answer for a while, then only the new one."""
    serving_steps.take_over(called, registry, url)


def test_a_model_that_cannot_be_loaded_goes_back_by_itself(called: Cirro, registry: ModelRegistry, url: str) -> None:
    """What was served before answers all the time; the command says why, and so does its exit code."""
    serving_steps.go_back(called, registry, url)


def test_the_version_before_can_be_served_again(called: Cirro, registry: ModelRegistry, url: str) -> None:
    """`rollback` is an update like any other."""
    serving_steps.roll_back(called, registry, url)


def test_doctor_names_the_versions_of_what_is_served(terminal: pytest.MonkeyPatch, url: str) -> None:
    """A registered version that is not served, and a service without HTTPS."""
    findings = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)["findings"]
    found = {each["id"]: each for each in findings}
    assert found["service"]["level"] == "ok"
    assert f"serves {serving_steps.version_at(url)}" in found["service_model"]["seen"]
    assert found["service_access"]["level"] == "warning"
    assert "127.0.0.0/8" in found["service_access"]["seen"]


def test_a_task_that_is_killed_is_replaced_by_one_with_the_same_version(
    called: Cirro, registry: ModelRegistry, url: str, emulator: Emulator
) -> None:
    """Also where the model has a newer version; the other task answers meanwhile.

    The load balancer answers 502, as AWS's does, to what the killed task was answering and until it is deregistered.
    """
    served = serving_steps.version_at(url)
    serving_steps.register(registry, 5)
    [before] = json.loads(called("serve", "status", "--json").stdout)
    with serving_steps.Load(url) as load:
        control(emulator, "faults", {"kind": "kill_task", "count": 1})
        poll(lambda: replaced(called, before), "a healthy target in the place of the killed one")
    assert len(load.failures) <= serving_steps.AT_ONCE, load.failures  # an answer may end in its middle
    assert set(load.answers) <= {(200, served), (502, "")}, load.answers
    assert load.answers[200, served] > 0
    with serving_steps.Load(url) as load:
        poll(lambda: load.answers.total() > 20, "some answers")
    assert (load.failures, set(load.answers)) == ([], {(200, served)})


def replaced(called: Cirro, before: dict[str, Any]) -> bool:
    """Whether there are two healthy targets, one of which was not there before."""
    [now] = json.loads(called("serve", "status", "--json").stdout)
    healthy = {each["address"] for each in now["targets"] if each["state"] == "healthy"}
    known = {each["address"] for each in before["targets"]}
    return len(now["targets"]) == len(healthy) == 2 and len(healthy - known) == 1
