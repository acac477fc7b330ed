"""The checks of ``cirro doctor``: for each one, the facts that it needs and the function that decides.

Facts come from `deployment_facts`, decisions from `verdicts`. Ids of checks are stable: programs read them.
"""

from __future__ import annotations

import os

from covalent_cirro.aws import container_model
from covalent_cirro.covalent_server import config as covalent_config
from covalent_cirro.covalent_server import plain_paths
from covalent_cirro.deployment.doctor import account_facts, resource_checks, secret_checks
from covalent_cirro.deployment.doctor.account_facts import Refusal
from covalent_cirro.deployment.doctor.check import Check, Findings, Skip
from covalent_cirro.deployment.doctor.deployment_facts import DeploymentFacts
from covalent_cirro.deployment.doctor.verdicts import (
    caller,
    server,
    stack_states,
)
from covalent_cirro.deployment.plans import BUDGET, TAG, wants_budget
from covalent_cirro.deployment.plans import stack_name as name_of_stack
from covalent_cirro.electron.engine import job_definition
from covalent_cirro.errors import SettingsError
from covalent_cirro.jobs.findings import FAILURE, OK, WARNING, Finding
from covalent_cirro.jobs.formatting import duration
from covalent_cirro.settings import BY_NAME, SECTION

# --- account ----------------------------------------------------------------------------------------------------------


def credentials(facts: DeploymentFacts) -> Findings:
    """Who the caller is, and when the credentials expire."""
    identity = facts.identity()
    if isinstance(identity, Refusal):
        return [
            Finding("credentials", "", FAILURE, str(identity.error), "`aws configure` or `aws sso login` sets them.")
        ]
    return [caller.credentials(identity, facts.where())]


def clock(facts: DeploymentFacts) -> Findings:
    """This machine's clock."""
    identity = facts.identity()
    if isinstance(identity, Refusal) and identity.clock_ahead_s is None:
        raise Skip("AWS did not answer")
    return [caller.clock(identity.clock_ahead_s)]


def region(facts: DeploymentFacts) -> Findings:
    """Whether the executor uses the region of the deployment."""
    return [caller.region(facts.settings().region or facts.where().region, facts.where().region)]


def cost_tag(facts: DeploymentFacts) -> Findings:
    """Whether the budget counts anything."""
    # In older deployments the budget is a part of the compute stack.
    holders = [facts.stacks().get(part) for part in (BUDGET, "compute")]
    if not any(holder is not None and wants_budget(holder.parameters) for holder in holders):
        raise Skip("the deployment has no budget")
    return [caller.cost_tag(TAG, account_facts.cost_tag_status(facts.clients, TAG), facts.where())]


# --- deployment -------------------------------------------------------------------------------------------------------


def stacks(facts: DeploymentFacts) -> Findings:
    """Whether all stacks exist and are complete."""
    states = [
        stack_states.StackState(part, found.name, found.status, found.reason, found.changed_at)
        if found is not None
        else stack_states.StackState(part, name_of_stack(facts.stack_name, part), "", "", "")
        for part, found in facts.stacks().items()
    ]
    return [stack_states.stacks(states, facts.where())]


def settings(facts: DeploymentFacts) -> Findings:
    """Whether an executor can be made from the config."""
    problems = facts.settings_problems
    try:
        found = facts.settings()
        container_model.require(found.job_properties)
        job_definition.refuse(found, BY_NAME)
    except SettingsError as error:
        problems = problems or [str(error)]
    if problems:
        told = " ".join(problems)
        return [Finding("settings", "", FAILURE, told, f"Correct [{SECTION}] in {covalent_config.config_path()}.")]
    return [Finding("settings", "", OK, f"[{SECTION}] in {covalent_config.config_path()} is valid; {facts.need()}")]


def time_limit(facts: DeploymentFacts) -> Findings:
    """Whether electrons that name no time limit are ended after minutes."""
    limit_s = facts.settings().time_limit
    seen = f"an attempt is ended after {duration(limit_s)}"
    if limit_s > BY_NAME["time_limit"].default:
        return [Finding("time_limit", "", OK, seen)]
    remedy = f"Set time_limit in [{SECTION}] of {covalent_config.config_path()}, or on executors that need longer."
    return [Finding("time_limit", "", WARNING, f"{seen}, as the option's default is", remedy)]


def config(facts: DeploymentFacts) -> Findings:
    """Whether the config has the deployment's settings."""
    facts.stacks()  # may be refused
    wanted = facts.deployed_settings()
    if not wanted:
        raise Skip("the deployment does not give all settings")
    return [stack_states.drift(facts.section, wanted, facts.where())]


# --- Covalent ---------------------------------------------------------------------------------------------------------


def covalent(facts: DeploymentFacts) -> Findings:
    """Whether the Covalent installed here is supported, and knows this plugin."""
    quoted = {name: path for name, path in covalent_config.folders().items() if not plain_paths.is_plain(path)}
    return [server.covalent(facts.here()), *server.folders(quoted, str(covalent_config.config_path()))]


def covalent_server(facts: DeploymentFacts) -> Findings:
    """Whether a Covalent server answers."""
    return [server.running(facts.server())]


def _running(facts: DeploymentFacts) -> server.Server:
    found = facts.server()
    if not found.answers:
        raise Skip("no Covalent server answers")
    return found


def server_plugin(facts: DeploymentFacts) -> Findings:
    """Whether the server has loaded this plugin."""
    return [server.plugin(_running(facts))]


def server_versions(facts: DeploymentFacts) -> Findings:
    """Whether server and client can read each other's pickles."""
    return [server.versions(facts.here(), _running(facts))]


def server_config(facts: DeploymentFacts) -> Findings:
    """Whether server and client read the same config."""
    return [server.config(_running(facts), str(covalent_config.config_path()))]


def server_environment(facts: DeploymentFacts) -> Findings:
    """Whether server and client use the same AWS account."""
    given = [name for name, value in facts.section.items() if value not in (None, "")]
    return [server.environment(_running(facts), os.environ, given)]


CHECKS: tuple[Check, ...] = (
    Check("credentials", credentials, needs=()),
    Check("clock", clock, needs=()),
    Check("stacks", stacks),
    Check("settings", settings),
    Check("time_limit", time_limit, needs=("settings",)),
    Check("region", region, needs=("credentials", "settings")),
    Check("config", config, needs=("credentials", "stacks")),
    Check("queue", resource_checks.queue, needs=("credentials", "settings")),
    Check("environment", resource_checks.environment, needs=("credentials", "settings")),
    Check("instance_types", resource_checks.instance_types, needs=("credentials", "settings")),
    Check("fit", resource_checks.fit, needs=("credentials", "settings")),
    Check("disk", resource_checks.disk, needs=("credentials", "stacks")),
    Check("quota", resource_checks.quota, needs=("credentials", "settings")),
    Check("network", resource_checks.net, needs=("credentials", "settings")),
    Check("shared_files", resource_checks.shared_files, needs=("credentials", "settings")),
    Check("job_role", resource_checks.job_role, needs=("credentials", "settings")),
    Check("execution_role", resource_checks.execution_role, needs=("credentials", "settings")),
    Check("instance_role", resource_checks.instance_role, needs=("credentials", "settings")),
    Check("permissions", resource_checks.permissions, needs=("credentials", "settings", "job_role", "execution_role")),
    Check("secrets", secret_checks.secrets, needs=("credentials", "settings", "execution_role")),
    Check("bucket", resource_checks.bucket, needs=("credentials", "settings")),
    Check("bucket_write", resource_checks.bucket_write, needs=("bucket",)),
    Check("bucket_security", resource_checks.bucket_security, needs=("bucket",)),
    Check("log_group", resource_checks.log_group, needs=("credentials", "settings")),
    Check("image", resource_checks.image, needs=("credentials", "settings")),
    Check("cost_tag", cost_tag, needs=("credentials", "stacks")),
    Check("covalent", covalent, needs=()),
    Check("server", covalent_server, needs=()),
    Check("server_plugin", server_plugin, needs=()),
    Check("server_versions", server_versions, needs=()),
    Check("server_config", server_config, needs=()),
    Check("server_environment", server_environment, needs=()),
)
"""All checks, in the order in which they are shown. A check is after the checks that it needs."""
