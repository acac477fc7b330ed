"""The options `environment` and `secrets`: what is refused, in words that never show a value that may be a secret."""

from __future__ import annotations

from typing import Any

import pytest

from covalent_cirro.electron.engine import job_variables
from covalent_cirro.electron.engine.job_definition import build_definition
from covalent_cirro.errors import SettingsError
from covalent_cirro.runner import ranks
from covalent_cirro.settings import check, resolve
from covalent_cirro.settings.variables import MAX_ENVIRONMENT_BYTES, MAX_SECRETS, RANK_VARIABLES, reference

SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/wandb-AbC123"


@pytest.mark.parametrize(
    "given",
    [
        {"OMP_NUM_THREADS": "4", "_X": "", "lower_case": "ä ö\nü"},
        {"TOKENIZERS_PARALLELISM": "false", "MAX_TOKEN": "4096", "HF_TOKEN": ""},
        {"GOOGLE_APPLICATION_CREDENTIALS": "/shared/key.json", "DB_SECRET": SECRET},
        {"AWS_REGION": "us-east-1", "AWS_PROFILE": "data", "PYTHONPATH": "/opt/code"},
        {"MODEL": "sk-learn", "URL": "https://example.com/a@b", "COMMIT": "0" * 40},
        {
            "PAD_TOKEN": "<pad>",
            "EOS_TOKEN": "<|endoftext|>",
            "SEP_TOKEN": "[SEP]",
            "MODEL": "sk-learn-is-great-and-good",
        },
        {
            "PATHS": "experiments/Run2024/Model/Checkpoints/a",
            "SHA": "a1" * 32,
            "ID": "123e4567-e89b-12d3-a456-426614174000",
        },
        {
            "KEY": "AKIAABCDEFGH123456",
            "X": "ghp_short",
            "PEM": "-----BEGIN PUBLIC KEY-----",
            "DISK": "disk-" + "a1" * 9,
        },
    ],
)
def test_plain_variables_are_possible(given: dict[str, str]) -> None:
    """What is no credential, and is not AWS's or the runner's."""
    assert resolve({"environment": given}, {}).environment == given


@pytest.mark.parametrize("option", ["environment", "secrets"])
@pytest.mark.parametrize(
    "name",
    [
        *("AWS_BATCH_JOB_ID", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_EXECUTION_ENV", "ECS_CONTAINER_METADATA_URI"),
        *("CIRRO_CHECKPOINT", "COVALENT_DISPATCH_ID", "1X", "A-B", "A B", "A=B", "Ä", "A\n"),
    ],
)
def test_names_that_are_not_the_users_are_refused(option: str, name: str) -> None:
    """Those of AWS and of the runner, and what no shell takes."""
    with pytest.raises(SettingsError, match=rf"^{option}: .*(cannot be set|cannot be the name)"):
        check({option: {name: SECRET}})


def test_the_variables_of_ranks_are_those_that_the_runner_sets() -> None:
    """Two rooms that do not import each other name them."""
    found = ranks.variables(ranks.Placement(0, 2, 1, "10.0.0.1", 29500), 0, {})
    assert {name for name in found if not name.startswith("CIRRO_")} == RANK_VARIABLES


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_SESSION_TOKEN", "x"),
        ("KEY", "AKIA" + "ABCDEFGH12345678"),
        ("X", "ghp_" + "a1B2" * 9),
        ("X", "github_pat_" + "a1B2" * 9),
        ("X", "sk-proj-" + "a1B2" * 9),
        ("X", "hf_" + "a1B2" * 9),
        ("X", "xoxb-" + "1234567890-abcdef"),
        ("X", "AIza" + "a1B2c" * 7),
        ("X", "eyJ" + "hbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.e30.x"),
        ("X", "-----BEGIN RSA PRIVATE KEY-----\nabc"),
        ("DATABASE_URL", "postgres://ada:lovelace@db/x"),
        ("WANDB_API_KEY", "0123456789abcdef" * 2 + "01234567"),
        ("DB_PASSWORD", "hunter2"),
        ("password", "hunter2"),
        ("PGPASSWORD", "hunter2"),
        ("MYSQL_PWD", "hunter2"),
        ("X", "wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY"),
        ("X", "[default]\naws_secret_access_key = x"),
        ("X", "glrt-" + "a1B2" * 5),
        ("X", "xapp-1-" + "A0123456789-0123456789"),
        ("X", "https://hooks.slack.com/services/T0/B0/" + "a1B2" * 6),
        ("X", "dckr_pat_" + "a1B2" * 7),
        ("X", "sk_test_" + "a1B2" * 6),
        ("X", "hvs." + "a1B2" * 6),
        ("X", "ya29." + "a1B2" * 9),
        ("X", "gsk_" + "a1B2" * 13),
        ("X", "r8_" + "a1B2" * 9),
        ("X", "dapi" + "a1b2" * 8),
        ("X", "SG." + "a1B2c3" * 4 + "." + "a1B2" * 10),
        ("X", "DefaultEndpointsProtocol=https;AccountKey=" + "a1B2" * 22),
        ("X", "AGE-SECRET-KEY-1" + "A1B2" * 14),
        ("X", "Bearer " + "a1B2" * 9),
        ("X", "PGP: -----BEGIN PGP PRIVATE KEY BLOCK-----"),
        ("X", "redis://:hunter2@cache:6379"),
    ],
)
def test_credentials_are_refused_with_the_words_for_secrets(name: str, value: str) -> None:
    """The error names the option to use, and does not show the value."""
    with pytest.raises(SettingsError) as refused:
        check({"environment": {name: value}})
    assert "secrets={" in str(refused.value)
    assert len(value) == 1 or value not in str(refused.value)


@pytest.mark.parametrize("given", [{"DB_PASSWORD": 7381726354}, {"A": 1, "B": "sk-" + "a1B2" * 9}, "sk-" + "a1B2" * 9])
def test_a_value_of_a_wrong_kind_is_not_shown(given: object) -> None:
    """The message names variables and types only."""
    for option in ("environment", "secrets"):
        with pytest.raises(SettingsError, match="a mapping of names") as refused:
            check({option: given})
        assert "7381726354" not in str(refused.value)
        assert "a1B2" not in str(refused.value)


@pytest.mark.parametrize("name", ["environment", "secrets"])
def test_properties_of_the_container_cannot_have_them(name: str) -> None:
    """The runner would see them; the error does not show them."""
    with pytest.raises(SettingsError, match=rf"Set {name}={{...}} on the executor") as refused:
        check({"job_properties": {name: [{"name": "X", "value": "hunter2"}], "user": "0"}})
    assert "hunter2" not in str(refused.value)


def test_what_is_too_large_is_refused() -> None:
    """A job definition has a limit."""
    check({"environment": {"X": "a" * (MAX_ENVIRONMENT_BYTES - 20)}})
    with pytest.raises(SettingsError, match="are the most"):
        check({"environment": {"X": "a" * MAX_ENVIRONMENT_BYTES}})
    with pytest.raises(SettingsError, match="are the most"):
        check({"secrets": {f"X{i}": "ssm:/x" for i in range(MAX_SECRETS + 1)}})
    with pytest.raises(SettingsError, match="NUL"):
        check({"environment": {"X": "a\0b"}})
    with pytest.raises(SettingsError, match="half of a surrogate pair"):
        check({"environment": {"X": "a\udc80b"}})


def test_what_is_too_large_together_is_refused_with_the_size_of_each() -> None:
    """Each alone is possible; quotes take two bytes in the job definition."""
    environment, secrets = {"X": '"' * 5_000}, {f"X_{i}": f"{SECRET}:key" for i in range(MAX_SECRETS)}
    assert resolve({"secrets": secrets}, {}).secrets == secrets
    assert resolve({"environment": {"X": "a" * 10_000}}, {}).environment
    with pytest.raises(SettingsError, match=r"environment 2\d,\d{3}, secrets 6,\d{3}, job_properties 2\)"):
        resolve({"environment": environment, "secrets": secrets}, {})


@pytest.mark.parametrize(
    ("text", "value_from", "key"),
    [
        (SECRET, SECRET, ""),
        (f"{SECRET}:password", f"{SECRET}:password::", "password"),
        (f"{SECRET}:password::", f"{SECRET}:password::", "password"),
        (f"{SECRET}::AWSPREVIOUS:", f"{SECRET}::AWSPREVIOUS:", ""),
        (f"{SECRET}:a::12-34", f"{SECRET}:a::12-34", "a"),
        ("ssm:/team/db", "/team/db", ""),
        ("ssm:db", "db", ""),
        *(2 * ("arn:aws-cn:ssm:cn-north-1:123456789012:parameter/team/db",) + ("",),),
    ],
)
def test_what_ecs_is_told(text: str, value_from: str, key: str) -> None:
    """The forms of ECS (ECS API Reference, Secret)."""
    found = reference(text)
    assert found is not None
    assert (found.value_from, found.key) == (value_from, key)
    account = ("aws", "eu-west-1", "123456789012")
    assert found.arn(*account).startswith("arn:aws")
    if text.startswith("ssm:"):
        assert found.arn(*account) == f"arn:aws:ssm:eu-west-1:123456789012:parameter/{text[4:].lstrip('/')}"


@pytest.mark.parametrize(
    "text",
    [
        *("sk-" + "a1B2" * 9, "team/wandb", "ssm:", "ssm:/", "ssm:/a//b", "ssm:/a/", "ssm:/a b", SECRET[:-7]),
        *(f"{SECRET}:a:b:c:d", f"{SECRET}:key\n", f"{SECRET} ", "arn:aws:s3:::bucket", ""),
        "arn:aws:ssm:eu-west-1:123456789012:parameter//a",
    ],
)
def test_what_names_no_secret_is_refused_and_not_shown(text: str) -> None:
    """Somebody may have written the secret itself."""
    with pytest.raises(SettingsError, match="names no secret") as refused:
        check({"secrets": {"X": text}})
    assert not text or text not in str(refused.value).replace('"ssm:/NAME"', "")


def test_secrets_need_an_execution_role_and_names_of_their_own() -> None:
    """ECS reads them with that role."""
    assert resolve({"secrets": {"X": SECRET}}, {}).secrets == {"X": SECRET}
    with pytest.raises(SettingsError, match="SecretArns"):
        resolve({"secrets": {"X": SECRET}, "batch_execution_role_name": ""}, {})
    with pytest.raises(SettingsError, match="both have 'X'"):
        resolve({"secrets": {"X": SECRET}, "environment": {"X": "1"}}, {})


# --- the job definition -----------------------------------------------------------------------------------------------


def definition(**options: object) -> dict[str, Any]:
    """The body of a job definition."""
    return build_definition(
        resolve(options, {}), region="eu-west-1", job_role_arn="arn:job", execution_role_arn="arn:x"
    )


def test_the_definition_has_them_where_only_the_electron_finds_them() -> None:
    """Variables are packed into one, and secrets have a prefix and say where their values are."""
    plain = definition()["containerProperties"]
    found = definition(environment={"B": "2", "A": "ä"}, secrets={"KEY": f"{SECRET}:key", "DB": "ssm:/team/db"})
    assert found["containerProperties"] == {
        **plain,
        "environment": [*plain["environment"], {"name": "CIRRO_ENVIRONMENT", "value": '{"A":"ä","B":"2"}'}],
        "secrets": [
            {"name": "CIRRO_SECRET_DB", "valueFrom": "/team/db"},
            {"name": "CIRRO_SECRET_KEY", "valueFrom": f"{SECRET}:key::"},
        ],
    }


def test_other_variables_and_secrets_are_other_definitions_and_other_work() -> None:
    """Their order makes no difference."""
    options: list[dict[str, Any]] = [
        {},
        {"environment": {"A": "1"}},
        {"environment": {"A": "2"}},
        {"environment": {"A": "1", "B": "1"}},
        {"secrets": {"A": "ssm:/a"}},
        {"secrets": {"A": "ssm:/b"}},
    ]
    assert len({definition(**each)["jobDefinitionName"] for each in options}) == len(options)
    assert len({job_variables.digest(resolve(each, {})) for each in options}) == len(options)
    assert job_variables.digest(resolve({}, {})) == ""
    turned = {"environment": {"B": "1", "A": "1"}}
    assert definition(**turned) == definition(**options[3])
    assert job_variables.digest(resolve(turned, {})) == job_variables.digest(resolve(options[3], {}))
