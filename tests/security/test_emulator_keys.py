"""Only who has the emulator's key, or a key that it gave, is answered: other users of the machine have neither."""

from __future__ import annotations

import json
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from covalent_cirro.errors import CirroError
from covalent_cirro.local.emulator import Emulator, Timing, keys
from covalent_cirro.local.emulator.ecr.registry import LAYER_LIFE_S, Tokens
from covalent_cirro.local.emulator.keys import Key
from tests.access import control
from tests.emulator.conftest import Aws, poll
from tests.pushed_images import Pushes, digest_of

ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1})
ANYBODY = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """An emulator that does not enforce IAM: who may call may do all."""
    with Emulator(state_dir=tmp_path_factory.mktemp("state"), timing=Timing(scale=0.02)) as emulator:
        yield Aws(emulator)


CALLS = {
    "batch": lambda client: client.list_jobs(jobQueue="q"),
    "s3": lambda client: client.list_buckets(),
    "sts": lambda client: client.get_caller_identity(),
    "ec2": lambda client: client.describe_instances(),
    "logs": lambda client: client.describe_log_groups(),
    "cloudformation": lambda client: client.describe_stacks(),
}

REFUSED = {
    # By what the caller has: the code of each of these services.
    "no key": [
        "MissingAuthenticationToken",
        "AccessDenied",
        "MissingAuthenticationToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationToken",
    ],
    "a key of nobody": [
        "UnrecognizedClientException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "AuthFailure",
        "UnrecognizedClientException",
        "InvalidClientTokenId",
    ],
    "the id without the secret": [
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "SignatureDoesNotMatch",
        "AuthFailure",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
    ],
}


@pytest.mark.parametrize("caller", REFUSED)
def test_nobody_else_calls_aws(aws: Aws, caller: str) -> None:
    """Refused in each service's own words, in all three of AWS's protocols, before anything is done."""
    options: dict[str, Any] = {
        "no key": {"config": ONCE.merge(Config(signature_version=UNSIGNED))},
        "a key of nobody": {"config": ONCE, **ANYBODY},
        "the id without the secret": {"config": ONCE, "aws_secret_access_key": "guessed"},
    }[caller]
    codes = []
    for service, call in CALLS.items():
        with pytest.raises(ClientError) as refused:
            call(aws.emulator.client(service, **options))
        codes.append(refused.value.response["Error"]["Code"])
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 403)
    assert codes == REFUSED[caller]


def test_the_emulators_calls_to_itself_are_signed_too(aws: Aws) -> None:
    """Their key id is in the source for everybody to read; its secret is the emulator's."""
    forged = aws.emulator.client("s3", config=ONCE, aws_access_key_id=keys.OWN_ID, aws_secret_access_key="testing")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        forged.list_buckets()


def test_a_url_that_nobody_signed_gives_no_object(aws: Aws) -> None:
    """Nor does one that was signed in the old way, which AWS has given up, or for another object."""
    bucket = aws.bucket()
    aws.s3.put_object(Bucket=bucket, Key="mine", Body=b"secret")
    good = aws.s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "mine"})
    old = aws.emulator.client("s3", config=Config(signature_version="s3"))
    bad = [
        good.partition("?")[0],
        good.replace("/mine?", "/mine?versionId=1&"),
        aws.s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "other"}).replace("other", "mine"),
        old.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "mine"}),
    ]
    assert requests.get(good, timeout=10).content == b"secret"
    assert [requests.get(url, timeout=10).status_code for url in bad] == [403] * len(bad)


@pytest.mark.parametrize(
    ("method", "route"),
    [
        ("GET", "_cirro/health"),
        ("GET", "_cirro/status"),
        ("GET", "_cirro/calls"),
        ("DELETE", "_cirro/calls"),
        ("GET", "_cirro/faults"),
        ("PUT", "_cirro/faults"),
        ("GET", "_cirro/limits"),
        ("PUT", "_cirro/images"),
        ("PUT", "_cirro/account"),
        ("DELETE", "_cirro/hosts/i-0"),
        ("GET", "_cirro/nothing"),
        ("GET", "moto-api"),
        ("GET", "moto-api/config"),
        ("POST", "moto-api/reset"),
    ],
)
def test_the_emulators_own_routes_want_the_key(aws: Aws, method: str, route: str) -> None:
    """Without it, with another one, and with half of it: the same refusal, and nothing is done."""
    key = aws.emulator.key
    aws.bucket()
    for authorization in (
        None,
        Key(key.id, "guessed").basic,
        Key("", key.secret).basic,
        f"Bearer {key.secret}",
        "\u00e9",
    ):
        headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
        answer = requests.request(method, f"{aws.emulator.endpoint_url}/{route}", headers=headers, timeout=10)
        assert answer.status_code == 403
        assert "key of this emulator" in answer.json()["message"]
    assert aws.s3.list_buckets()["Buckets"]


def test_moto_answers_on_its_pages_who_has_the_key(aws: Aws) -> None:
    """As before; a browser cannot show them, because it has no key."""
    headers = {"Authorization": aws.emulator.key.basic}
    answer = requests.get(f"{aws.emulator.endpoint_url}/moto-api/config", headers=headers, timeout=60)
    assert answer.ok
    assert "batch" in answer.json()


SHOW = "env; echo LAST=1; exec sleep 60"


def test_a_tasks_own_routes_are_known_to_the_task_only(aws: Aws) -> None:
    """Its ARN, its log stream and what DescribeJobs says do not tell where its credentials are; its environment does.

    The credentials then sign calls, as before, until they are asked for by a task that has ended.
    """
    job_id = aws.submit(definition=aws.definition("sh", "-c", SHOW, jobRoleArn=aws.role()))
    job = aws.reach(job_id, "RUNNING")
    task_id = job["container"]["taskArn"].rsplit("/", 1)[1]
    last = "LAST=1"
    lines = poll(lambda: (said := aws.log(job)) and said[-1] == last and said, "its environment")
    variables = dict(line.split("=", 1) for line in lines)
    uris = [variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"], variables["ECS_CONTAINER_METADATA_URI_V4"]]
    for uri in uris:
        name = uri.rsplit("/", 1)[1]
        assert name not in json.dumps(job, default=str)
        assert len(name) >= 32
        assert requests.get(uri, timeout=10).status_code == 200
        assert requests.get(uri.replace(name, task_id), timeout=10).status_code == 404
    given = requests.get(uris[0], timeout=10).json()
    own = {"aws_access_key_id": given["AccessKeyId"], "aws_secret_access_key": given["SecretAccessKey"]}
    who = aws.emulator.client("sts", **own, aws_session_token=given["Token"]).get_caller_identity()
    assert who["Arn"].endswith(task_id)
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        aws.emulator.client("sts", **{**own, "aws_secret_access_key": "guessed"}).get_caller_identity()
    aws.batch.terminate_job(jobId=job_id, reason="enough")
    aws.done(job_id)
    assert requests.get(uris[0], timeout=10).status_code == 404


def test_a_layer_is_given_by_its_own_url_only(aws: Aws) -> None:
    """That of ECR's GetDownloadUrlForLayer; a digest and a repository's name are no secret."""
    pushes = Pushes(aws.emulator)
    name = pushes.repository("private")
    pushes.image(name, "one", layers=[b"secret"])
    digest = digest_of(b"secret")
    url = pushes.ecr.get_download_url_for_layer(repositoryName=name, layerDigest=digest)["downloadUrl"]
    assert requests.get(url, timeout=10).content == b"secret"
    plain = url.partition("?")[0]
    bad = [
        plain,
        f"{plain}?repository={name}",
        f"{plain}?repository={name}&until=99999999999&signature=00",
        url.replace("until=", "until=9"),
        url.replace(f"repository={name}", "repository=other"),
    ]
    assert [requests.get(each, timeout=10).status_code for each in bad] == [403] * len(bad)
    answer = requests.get(f"{aws.emulator.endpoint_url}/v2/{name}/manifests/one", timeout=10)
    assert answer.status_code == 401


def test_a_layers_url_ends() -> None:
    """An hour after it was given."""
    now = [1000.0]
    tokens = Tokens(clock=lambda: now[0])
    query = dict(
        part.split("=") for part in urlsplit(tokens.layer_url("http://x", "r", "name", "digest")).query.split("&")
    )
    assert tokens.holds("r", "name", "digest", query)
    now[0] += LAYER_LIFE_S + 1
    assert not tokens.holds("r", "name", "digest", query)


def test_a_token_of_a_ci_service_is_the_emulators_own(aws: Aws) -> None:
    """STS's AssumeRoleWithWebIdentity is the only call that nobody signs: with a made-up token it gives no keys."""
    sts, role = aws.emulator.client("sts", config=ONCE), aws.role()
    for token in ("a.b.c", aws.emulator.web_identity + "x"):
        with pytest.raises(ClientError, match="MissingAuthenticationToken"):
            sts.assume_role_with_web_identity(RoleArn=role, RoleSessionName="ci", WebIdentityToken=token)
    url = aws.emulator.endpoint_url
    form = {"Action": "AssumeRoleWithWebIdentity", "WebIdentityToken": aws.emulator.web_identity}
    forged = requests.post(f"{url}/?Action=CreateUser&UserName=mallory&Version=2010-05-08", data=form, timeout=10)
    assert "MissingAuthenticationToken" in forged.text
    assert aws.iam.list_users()["Users"] == []
    given = sts.assume_role_with_web_identity(
        RoleArn=role, RoleSessionName="good", WebIdentityToken=aws.emulator.web_identity
    )["Credentials"]
    assert given["AccessKeyId"]


def test_the_key_is_the_folders_and_nobody_elses(tmp_path: Path) -> None:
    """Made anew for each folder, read by its owner only, and kept for the next emulator of the folder."""
    with Emulator(state_dir=tmp_path / "one") as one, Emulator(state_dir=tmp_path / "two") as two:
        assert one.key.id != two.key.id
        assert one.key.secret != two.key.secret
        assert (len(one.key.id), len(one.key.secret)) == (20, 40)
        path = one.state_dir / "credentials"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(one.state_dir.stat().st_mode) == 0o700
        assert keys.read(path) == one.key
        stranger = {"aws_access_key_id": one.key.id, "aws_secret_access_key": one.key.secret, "config": ONCE}
        with pytest.raises(ClientError, match="InvalidAccessKeyId"):
            two.client("s3", **stranger).list_buckets()
        before = one.key
    with Emulator(state_dir=tmp_path / "one") as again:
        assert again.key == before
        assert control(again, "health") == {"status": "ok"}


def test_the_file_of_the_key_is_one_of_awss(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every SDK finds it by one variable, which says where, not what."""
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(aws.emulator.state_dir / "credentials"))
    client = boto3.Session(region_name="us-east-1").client("sts", endpoint_url=aws.emulator.endpoint_url)
    assert client.get_caller_identity()["Account"] == aws.emulator.account


@pytest.mark.parametrize("text", ["", "[default]\n", "nonsense", "[default]\naws_access_key_id = a\n"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    """With what to do; the emulator does not start with no key at all."""
    (tmp_path / "credentials").write_text(text)
    with pytest.raises(CirroError, match=r"credentials .*Remove it"):
        Emulator(state_dir=tmp_path).start()


def test_an_unsigned_request_costs_nothing(aws: Aws) -> None:
    """It is neither counted nor hit by a fault: those are for calls."""
    aws.emulator.calls.reset()
    number = aws.emulator.faults.add("error", service="batch", count=1)
    try:
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(urllib.request.Request(f"{aws.emulator.endpoint_url}/v1/listjobs", method="POST"))
        assert aws.emulator.calls.counts() == {}
        assert aws.emulator.faults.all()[0]["hits"] == 0
    finally:
        aws.emulator.faults.clear(number)
