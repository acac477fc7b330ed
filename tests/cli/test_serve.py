"""``cirro serve`` against an emulated AWS: a service is made, looked at, changed, and deleted.

Its image is a program of the standard library, which says which version it is; its tasks are processes.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from covalent_cirro import deployment
from covalent_cirro.aws.clients import Clients
from covalent_cirro.aws.sessions import Access
from covalent_cirro.cli import main
from covalent_cirro.local.emulator import Emulator
from covalent_cirro.local.emulator.attempts.runtime import ImageConfig
from covalent_cirro.local.emulator.batch.model import Timing
from covalent_cirro.serving import service_facts
from tests.access import variables
from tests.pushed_images import Pushes

Cirro = Callable[..., Result]

PROGRAM = """
import os, signal, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

version = os.environ["VERSION"]
if version == "broken":
    print("no such weights", flush=True)
    sys.exit(3)

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"{version} {os.environ.get('CIRRO_MODEL', '')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

class Server(ThreadingHTTPServer):
    daemon_threads = False

server = Server((os.environ["HOST"], int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print(f"{version} listens", flush=True)
server.serve_forever()
server.server_close()
"""
LOCAL = ("--allow-from", "127.0.0.1/32")


def image(version: str) -> ImageConfig:
    """An image whose program is of a version."""
    return ImageConfig(entrypoint=(sys.executable, "-c", PROGRAM), environment={"VERSION": version})


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulated AWS as the AWS of this process, with a deployment."""
    images = {version: image(version) for version in ("v1", "v2", "broken")}
    # What serves a model has the command of the recommender, which this program does not look at.
    images["recommender"] = image("model")
    folder = tmp_path_factory.mktemp("serving")
    before = dict(os.environ)
    with Emulator(state_dir=folder / "emulator", images=images, timing=Timing(scale=0.05)) as running:
        for name in [name for name in os.environ if name.startswith(("AWS_", "COVALENT_"))]:
            del os.environ[name]
        os.environ.update(
            {
                "AWS_ENDPOINT_URL": running.endpoint_url,
                **variables(running.key),
                "AWS_DEFAULT_REGION": running.region,
                "AWS_CONFIG_FILE": str(folder / "none"),
                "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
                "AWS_EC2_METADATA_DISABLED": "true",
                "COVALENT_CONFIG_DIR": str(folder / "covalent"),
            }
        )
        try:
            deployment.deploy(running.client("cloudformation"), "cirro")
            yield running
        finally:
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
            os.environ.update(before)


@pytest.fixture(scope="module")
def outputs(aws: Emulator) -> dict[str, str]:
    """Outputs of the deployment."""
    return deployment.outputs(aws.client("cloudformation"), "cirro")


@pytest.fixture(scope="module")
def films(aws: Emulator) -> Iterator[Result]:
    """A service of two tasks, and what was said while it was made. Each test leaves it with version 1."""

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    done = call("serve", "deploy", "films", "--image", "v1", "--port", 8080, *LOCAL, "--yes")
    assert done.exit_code == 0, done.output
    yield done
    gone = call("serve", "destroy", "films", "--yes")
    assert gone.exit_code == 0, gone.output


def url_of(aws: Emulator, name: str = "films") -> str:
    """Where a service answers."""
    [stack] = aws.client("cloudformation").describe_stacks(StackName=f"cirro-serving-{name}")["Stacks"]
    return next(each["OutputValue"] for each in stack["Outputs"] if each["OutputKey"] == "Url")


def get(url: str) -> str:
    """The body of the answer to a request; the status where it is not 200."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        connection.request("GET", parts.path or "/")
        answer = connection.getresponse()
        body = answer.read().decode()
        return body.strip() if answer.status == 200 else str(answer.status)
    finally:
        connection.close()


# --- without a service -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("films",), "what is to be served"),
        (("--image", "v1"), "give the service a NAME"),
        (("films", "--image", "v1"), "HTTP alone"),
        (("films", "--image", "v1", "--allow-from", "0.0.0.0/0"), "lets in the whole internet"),
        (("films", "--image", "v1", "--allow-from", "everybody"), "AllowFrom=everybody is impossible"),
        (("films", "--image", "v1", *LOCAL, "--parameter", "MinTask=2"), "there is no parameter 'MinTask'"),
        (("films", "--image", "v1", *LOCAL, "--parameter", "TaskMemory=700"), "Fargate has no task of"),
        (("films", "--image", "v1", *LOCAL, "--command", "a 'b,c'"), "separates the words by commas"),
        (("--model", "books", *LOCAL), "no current version"),
        (
            ("films", "--image", "v1", "--certificate", "arn:aws:acm:eu-west-1:123456789012:certificate/0a"),
            "is in eu-west-1, the load balancer in us-east-1",
        ),
    ],
)
def test_what_cannot_work_is_wrong_usage(aws: Emulator, cirro: Cirro, given: tuple[str, ...], words: str) -> None:
    """Before anything is made or paid for."""
    refused = cirro("serve", "deploy", *given, "--yes")
    assert refused.exit_code == 2, refused.output
    assert words in refused.stderr
    stacks = aws.client("cloudformation").describe_stacks()["Stacks"]
    assert not [each for each in stacks if "-serving-" in each["StackName"]]


def test_an_image_of_the_repository_has_to_be_there(aws: Emulator, cirro: Cirro, outputs: dict[str, str]) -> None:
    """With its tag; what tags there are is said."""
    given = ("--image", f"{outputs['ImageRepository']}:v9")
    refused = cirro("serve", "deploy", "films", *given, *LOCAL, "--yes")
    assert refused.exit_code == 2
    assert "has no image with the tag 'v9'" in refused.stderr


def test_an_image_of_another_architecture_is_refused(aws: Emulator, cirro: Cirro, outputs: dict[str, str]) -> None:
    """By ECR's word; a list of images for both is taken, and named by its digest."""
    uri, pushes = outputs["ImageRepository"], Pushes(aws)
    name = uri.partition("/")[2]
    digests = {each: pushes.image(name, f"serve-{each}", architecture=each) for each in ("amd64", "arm64")}
    both = pushes.index(name, "serve-both", digests)
    refused = cirro("serve", "deploy", "films", "--image", f"{uri}:serve-arm64", *LOCAL, "--yes")
    assert refused.exit_code == 2
    assert "is for arm64, and tasks run on amd64" in refused.stderr
    clients = Clients(Access(None, None, None, None))
    found = service_facts.image_of(clients, aws.account, f"{uri}:serve-both")
    assert (found.uri, set(found.architectures), found.problem) == (f"{uri}@{both}", {"amd64", "arm64"}, "")


def test_without_a_terminal_changes_need_yes(aws: Emulator, cirro: Cirro) -> None:
    """A script that hangs at a question helps nobody; the plan is shown, and nothing is left of it."""
    refused = cirro("serve", "deploy", "films", "--image", "v1", *LOCAL)
    assert refused.exit_code == 2
    assert "give --yes. Nothing was changed." in refused.stderr
    assert "load balancer" in refused.stdout
    assert json.loads(cirro("serve", "status", "--json").stdout) == []


def test_without_a_service_there_is_nothing_to_look_at(aws: Emulator, cirro: Cirro) -> None:
    """Each command says so; `status` by an exit code of its own."""
    assert cirro("serve", "status").exit_code == 3
    for command in ("update", "rollback", "logs", "destroy"):
        said = cirro("serve", command)
        assert said.exit_code == 1
        assert "the deployment 'cirro' has no service. `cirro serve deploy` makes one." in said.stderr


@pytest.mark.skipif(shutil.which("aws") is None, reason="the AWS CLI is not installed here")
def test_the_page_finds_the_repository_for_the_image(aws: Emulator, outputs: dict[str, str]) -> None:
    """By the first line that docs/serving.md shows for it."""
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    [line] = re.findall(r"^\$ (repository=\$\(aws.*?\"\))$", text, re.MULTILINE | re.DOTALL)
    said = subprocess.run(["bash", "-ec", f'{line}; echo "$repository"'], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == outputs["ImageRepository"]


# --- a service of its own ----------------------------------------------------------------------------------------


def test_a_creation_that_fails_says_why(aws: Emulator, cirro: Cirro) -> None:
    """With the last lines of a task, though their log is deleted with the rest; the next try makes it anew."""
    failed = cirro("serve", "deploy", "films", "--image", "broken", *LOCAL, "--yes")
    assert failed.exit_code == 1
    assert "the service 'films' could not be made" in failed.stderr
    assert "Essential container in task exited; exit code 3. Its last lines:\n    no such weights" in failed.stderr
    seen = cirro("serve", "status")
    assert "cirro-serving-films ROLLBACK_COMPLETE" in seen.output
    assert "a day" not in seen.output
    try:
        again = cirro("serve", "deploy", "films", "--image", "v1", *LOCAL, "--yes")
        assert again.exit_code == 0, again.output
        assert "is made anew after a failed try" in again.output
    finally:
        assert cirro("serve", "destroy", "films", "--yes").exit_code == 0


def test_nothing_is_left_of_a_service(aws: Emulator, cirro: Cirro) -> None:
    """No load balancer, target group, group, role, log group or cluster, and its address is free."""

    def there() -> dict[str, int]:
        elb, ec2, logs = (aws.client(each) for each in ("elbv2", "ec2", "logs"))
        return {
            "balancers": len(elb.describe_load_balancers()["LoadBalancers"]),
            "target groups": len(elb.describe_target_groups()["TargetGroups"]),
            "groups": len(ec2.describe_security_groups()["SecurityGroups"]),
            "roles": len(aws.client("iam").list_roles()["Roles"]),
            "log groups": len(logs.describe_log_groups()["logGroups"]),
        }

    before = there()
    assert cirro("serve", "deploy", "films", "--image", "v1", *LOCAL, "--yes").exit_code == 0
    url = url_of(aws)
    gone = cirro("serve", "destroy", "--yes")
    assert gone.exit_code == 0, gone.output
    assert "nothing of the service 'films' is left" in gone.output
    assert there() == before
    with pytest.raises(OSError, match="refused"):
        get(url)


def test_the_deployment_takes_its_services_with_it(aws: Emulator, cirro: Cirro) -> None:
    """They are in its network, which could not be deleted else; all of it is listed first."""
    deployment.deploy(aws.client("cloudformation"), "team")
    given = ("films", "--image", "v1", *LOCAL, "--stack-name", "team")
    assert cirro("serve", "deploy", *given, "--yes").exit_code == 0
    gone = cirro("destroy", "--stack-name", "team", "--yes")
    assert gone.exit_code == 0, gone.output
    assert gone.output.index("team-serving-films") < gone.output.index("team-compute")
    assert "nothing of the deployment 'team' is left" in gone.output


def certificate(name: str) -> tuple[bytes, bytes]:
    """A certificate that is signed by its own key, and that key."""
    key = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    made = x509.CertificateBuilder(own, own, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=100))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), pem


def test_with_a_certificate_it_is_https(
    aws: Emulator, cirro: Cirro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked by the name of the certificate before DNS knows it; the command says which record DNS needs."""
    pem, key = certificate("films.example.org")
    arn = aws.client("acm").import_certificate(Certificate=pem, PrivateKey=key)["CertificateArn"]
    (tmp_path / "ca.pem").write_bytes(pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    made = cirro("serve", "deploy", "tls", "--image", "v1", "--certificate", arn, "--yes")
    try:
        assert made.exit_code == 0, made.output
        balancer = url_of(aws, "tls").removeprefix("https://")
        assert f"curl --connect-to films.example.org:443:{balancer} https://films.example.org/health" in made.output
        assert "It answers." in made.output
        assert f"a CNAME or an alias to {balancer}" in made.output
        listeners = aws.client("elbv2").describe_listeners(
            LoadBalancerArn=aws.client("elbv2").describe_load_balancers()["LoadBalancers"][0]["LoadBalancerArn"]
        )["Listeners"]
        assert {each["Protocol"]: each["DefaultActions"][0]["Type"] for each in listeners} == {
            "HTTP": "redirect",
            "HTTPS": "forward",
        }
        found = {each["id"]: each for each in json.loads(cirro("doctor", "--json").stdout)["findings"]}
        assert found["service_access"]["seen"] == "HTTPS for films.example.org, from 0.0.0.0/0"
    finally:
        assert cirro("serve", "destroy", "tls", "--yes").exit_code == 0


# --- one service for all tests that follow -----------------------------------------------------------------------


def test_a_service_is_shown_with_its_costs_made_and_answers(films: Result, aws: Emulator) -> None:
    """What will be made and what it costs, event by event what is, ECS's words, the URL, and a line to try."""
    text = films.output
    shown, happened = text.index("cirro-serving-films: is made"), text.index("CREATE_IN_PROGRESS")
    assert shown < happened
    assert re.search(r"\+   Service +AWS::ECS::Service", text[:happened])
    assert re.search(r"2 tasks of 0\.5 vCPU and 1 GB +\$1\.18 +\$36\.04", text[:happened])
    assert re.search(r"in all +\$\d\.\d\d +\$\d+\.\d\d", text[:happened])
    assert "list prices of us-east-1 of 2026-" in text[:happened]
    assert re.search(r"CREATE_COMPLETE +Service \(AWS::ECS::Service\)", text[happened:])
    assert "has reached a steady state" in text[happened:]
    url = url_of(aws)
    assert f"curl {url}/health" in text
    assert get(f"{url}/health") == "v1"


def test_deploying_again_changes_nothing(films: Result, cirro: Cirro) -> None:
    """Nobody is asked, and what was not given keeps its value."""
    again = cirro("serve", "deploy", "films")
    assert again.exit_code == 0, again.output
    assert "nothing changed: the service 'films' is as it was asked for" in again.output


def test_what_is_deployed_is_listed_by_status(films: Result, cirro: Cirro, aws: Emulator) -> None:
    """Tasks, targets, versions, requests and cost; for programs too."""
    for _ in range(3):
        assert get(url_of(aws)) == "v1"
    text = cirro("serve", "status").output
    assert re.search(r"tasks +2 running of 2", text)
    assert re.search(r"targets +2 healthy of 2", text)
    assert re.search(r"cost +\$2\.\d\d a day with 2 tasks", text)
    assert len(re.findall(r"^[0-9a-f]{8} +(?:us-east-1[a-z])? +RUNNING .* v1$", text, flags=re.MULTILINE)) == 2
    [seen] = json.loads(cirro("serve", "status", "films", "--json").stdout)
    assert (seen["running"], seen["image"], seen["stack"]["status"]) == (2, "v1", "CREATE_COMPLETE")
    assert {target["state"] for target in seen["targets"]} == {"healthy"}
    assert seen["rollout"].startswith("COMPLETED")


def test_what_tasks_print_is_shown(films: Result, cirro: Cirro) -> None:
    """Each line with its task."""
    lines = cirro("serve", "logs", "films").stdout.splitlines()
    assert len([line for line in lines if re.fullmatch(r"[0-9a-f]{8} v1 listens", line)]) >= 2
    first = json.loads(cirro("serve", "logs", "--json").stdout.splitlines()[0])
    assert first["text"] == "v1 listens"


def test_another_image_is_served_and_then_the_one_before(films: Result, cirro: Cirro, aws: Emulator) -> None:
    """At the same address. `test_serve_updates` does the same with a model, under load."""
    url = url_of(aws)
    done = cirro("serve", "update", "films", "--image", "v2", "--yes")
    assert done.exit_code == 0, done.output
    assert re.search(r"~   Service +AWS::ECS::Service", done.output)
    assert (url_of(aws), get(url)) == (url, "v2")
    back = cirro("serve", "rollback", "--yes")
    assert back.exit_code == 0, back.output
    assert get(url) == "v1"
