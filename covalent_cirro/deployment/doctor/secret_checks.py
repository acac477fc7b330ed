"""The check of the secrets that the config names: there, in the region, and readable by the execution role.

It never asks for a value: what the keys of a secret's JSON are is not known here.
"""

from __future__ import annotations

from covalent_cirro.aws.secret_lookups import MISSING_CODES
from covalent_cirro.deployment.doctor import account_facts
from covalent_cirro.deployment.doctor.check import Findings
from covalent_cirro.deployment.doctor.deployment_facts import DeploymentFacts
from covalent_cirro.deployment.doctor.verdicts import job_secrets
from covalent_cirro.deployment.doctor.verdicts.job_secrets import LookedUpSecret
from covalent_cirro.errors import AwsError
from covalent_cirro.jobs.findings import OK, Finding
from covalent_cirro.settings.variables import SecretReference, reference


def secrets(facts: DeploymentFacts) -> Findings:
    """Each secret that electrons have by the config."""
    settings, where = facts.settings(), facts.where()
    named = [(name, found) for name, text in settings.secrets.items() if (found := reference(text)) is not None]
    if not named:
        return [Finding("secrets", "", OK, "the config names none")]
    role = account_facts.role(facts.clients, settings.batch_execution_role_name).arn
    looked_up = [_looked_up(facts, name, each, role) for name, each in named]
    return [job_secrets.secret(each, settings.batch_execution_role_name, where) for each in looked_up]


def _looked_up(facts: DeploymentFacts, variable: str, found: SecretReference, role: str) -> LookedUpSecret:
    caller, where = facts.caller, facts.where()
    arn = found.arn(caller.arn.split(":")[1], where.region, caller.account)
    made = LookedUpSecret(variable, arn, found.region or where.region)
    if found.service == "ssm" and found.account not in ("", caller.account):
        # ListTagsForResource takes names, and so tells of the caller's own account only.
        made = made._replace(unknown=f"it is in the account {found.account}, and cannot be looked up from here")
    else:
        try:
            if deleted := account_facts.find_secret(facts.clients, found):
                return made._replace(absent=deleted)
        except AwsError as error:
            if error.code in MISSING_CODES:
                return made._replace(absent=str(error))
            made = made._replace(unknown=str(error))
    action = "secretsmanager:GetSecretValue" if found.service == "secretsmanager" else "ssm:GetParameters"
    try:
        denied = account_facts.denied(facts.clients, role, [([action], [arn], {})])
    except AwsError:
        return made._replace(denied=None)
    return made._replace(denied=[f"{asked}: {decision}" for asked, _, decision in denied])
