"""Makes and changes a service: checks what is asked for, shows the change set, executes it, and waits for an answer.

A change is rolling: ECS starts new tasks, and ends old ones only once the new ones are healthy. Where they do not
become healthy, ECS and CloudFormation go back by themselves, and the error has ECS's words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from covalent_cirro import deployment as deployments
from covalent_cirro.aws.clients import Clients
from covalent_cirro.deployment import change_sets, plans, stacks, templates
from covalent_cirro.deployment.change_sets import ChangeSet
from covalent_cirro.deployment.plans import PartPlan
from covalent_cirro.deployment.rollout import FAILED_CREATION
from covalent_cirro.deployment.stack_events import TIMEOUT_S, StackEvent, Watch, because
from covalent_cirro.deployment.stacks import Stack
from covalent_cirro.errors import Declined, ModelError, ServingError, SettingsError
from covalent_cirro.models.model_objects import BucketObjects
from covalent_cirro.models.model_registry import ModelRegistry
from covalent_cirro.serving import readiness, running_service, service_facts, service_values, task_ends
from covalent_cirro.serving.readiness import Reached
from covalent_cirro.serving.service_costs import ServiceSize
from covalent_cirro.serving.service_events import ServiceEvents
from covalent_cirro.serving.service_values import IMAGE, MODEL, PREVIOUS

MOST_TOLD = 2
"""Failed tasks whose last lines are in an error: they mostly fail alike."""

DEPLOY, UPDATE, ROLLBACK = "deploy", "update", "rollback"
"""What is asked for: a service that is made or brought up to date; another model or image; the one before."""


class Choice(NamedTuple):
    """What the user chooses for a service; what is left out keeps its value, or gets a default.

    Attributes:
        image: URI of an image.
        model: ``NAME`` for the current version of a model, or ``NAME@VERSION``.
        parameters: Parameters of ``infra/serving.yaml`` by name.
    """

    image: str | None = None
    model: str | None = None
    parameters: Mapping[str, str] = {}


class ServicePlan(NamedTuple):
    """What is to be done to a service.

    Attributes:
        service: Name of the service.
        part: What changes in its stack.
        size: What it then pays for by the hour.
        min_tasks: Tasks that always run.
        max_tasks: Tasks that run at most.
    """

    service: str
    part: PartPlan
    size: ServiceSize
    min_tasks: int
    max_tasks: int


class ServedService(NamedTuple):
    """A service that is deployed.

    Attributes:
        name: Name of the service.
        changed: Whether anything was made or changed.
        outputs: Outputs of its stack.
        parameters: Parameters of its stack.
        domain: Name that its certificate is for; empty without one.
        reached: How the wait for its answer ended.
    """

    name: str
    changed: bool
    outputs: dict[str, str]
    parameters: dict[str, str]
    domain: str
    reached: Reached


class Shown(NamedTuple):
    """Who is told what while a service is made or changed.

    Attributes:
        confirm: Called with the plan before it is carried out; returns whether to go on. Unset: go on.
        on_event: Called with each event of the stack.
        on_message: Called with each message of ECS.
        say: Called with each step, in a few words.
    """

    confirm: Callable[[ServicePlan], bool] = lambda plan: True
    on_event: Callable[[StackEvent], None] | None = None
    on_message: Callable[[str], None] | None = None
    say: Callable[[str], None] = lambda step: None


NOBODY = Shown()
"""Nobody is told or asked anything."""


def carry_out(
    clients: Clients,
    deployment: str,
    service: str,
    choice: Choice,
    what: str = DEPLOY,
    *,
    shown: Shown = NOBODY,
    timeout_s: float = TIMEOUT_S,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> ServedService:
    """Make a service or change it, and wait until its load balancer answers.

    Args:
        clients: Clients of the account.
        deployment: Name of the deployment.
        service: Name of the service.
        choice: What the user chooses; nothing for `ROLLBACK`.
        what: `DEPLOY`, `UPDATE` or `ROLLBACK`.
        shown: Who is told what.
        timeout_s: Seconds to wait for CloudFormation. After that AWS goes on by itself.
        sleep: Waits for so many seconds.
        clock: Seconds, monotonic.

    Raises:
        SettingsError: What is asked for is impossible; nothing was changed.
        ServingError: It was made or changed, and AWS took it back; or there is nothing to change.
        Declined: ``confirm`` returned False; nothing was changed.
        StackError: The stack could not be changed, or is not one of covalent-cirro.
        NotFound: There is no such deployment.
        AccessDenied, AwsError: AWS refused or could not be reached.
    """
    work = _Deploying(clients, deployment, service, shown, timeout_s, sleep, clock)
    return work.carry_out(choice, what)


class _Deploying:
    """One change of one service."""

    def __init__(
        self,
        clients: Clients,
        deployment: str,
        service: str,
        shown: Shown,
        timeout_s: float,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._clients = clients
        self._formation: Any = clients("cloudformation")
        self._deployment = deployment
        self._service = service
        self._shown = shown
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._clock = clock
        self._outputs: dict[str, str] = {}

    def carry_out(self, choice: Choice, what: str) -> ServedService:
        service_values.check_given(choice.parameters)
        self._outputs = deployments.outputs(self._formation, self._deployment)
        watch = self._watch(self._sleep)
        stack = self._usable(watch)
        ready = stack if stack is not None and stack.is_ready else None
        if what != DEPLOY and ready is None:
            running_service.choose(self._clients, self._deployment, self._service)  # says which there are
            raise ServingError(f"the service {self._service!r} is not there yet: `cirro serve deploy` makes it.")
        wanted, image = self._wanted(choice, what, ready)
        facts, values = self._checked(wanted, image, ready)
        anew = stack is not None and stack.status == FAILED_CREATION
        change_set = None if anew else self._change_set(watch, values, stack)
        try:
            if change_set is None and not anew:
                return self._answered(ready, changed=False)
            changes = plans.foresee(service_values.TEMPLATE, values) if change_set is None else change_set.changes
            part = service_values.plan(values, ready, changes, anew=anew)
            zones = len(service_values.zones(facts.subnets))
            size, least, most = service_values.size(values, zones), int(values["MinTasks"]), int(values["MaxTasks"])
            if not self._shown.confirm(ServicePlan(self._service, part, size, least, most)):
                raise Declined("nothing was changed: you said no.")
            if anew and stack is not None:
                self._remove(watch, stack)
                change_set = self._change_set(watch, values, None)
            assert change_set is not None  # a new stack always has changes
            executed, change_set = change_set, None
            return self._answered(self._execute(executed), changed=True)
        finally:
            if change_set is not None:
                change_sets.discard(self._formation, change_set)

    # --- what is wanted ---------------------------------------------------------------------------------------------

    def _wanted(self, choice: Choice, what: str, ready: Stack | None) -> tuple[dict[str, str], str | None]:
        """The parameters that are chosen, and the URI of the image if it is to be looked up."""
        before = {} if ready is None else ready.parameters
        if what == ROLLBACK:
            previous = {name: before.get(kept, "") for name, kept in PREVIOUS.items()}
            if not any(previous.values()):
                raise ServingError(
                    f"the service {self._service!r} has served nothing else before: there is nothing to go back to."
                )
            return {MODEL: previous[MODEL]}, previous[IMAGE] or None
        chosen, image, model = dict(choice.parameters), choice.image, choice.model
        if what == UPDATE and image is None and model is None:
            model = before.get(MODEL, "").partition("/")[0]
            if not model:
                raise SettingsError(f"the service {self._service!r} serves no model of the registry: give --image.")
        if ready is None and image is None:
            if model is None:
                raise SettingsError("what is to be served? Give --model NAME, or --image IMAGE.")
            emulated = service_facts.is_emulated(self._clients)
            image = service_values.LOCAL_MODEL_IMAGE if emulated else self._repository_image()
            chosen.setdefault("Command", service_values.RECOMMENDER_COMMAND)
        if ready is None and model is not None:
            chosen.setdefault("HealthPath", service_values.READY_PATH)
        if model is not None:
            chosen[MODEL] = model
        return chosen, image

    def _repository_image(self) -> str:
        return f"{self._outputs.get('ImageRepository', '')}:{service_values.MODEL_IMAGE_TAG}"

    def _checked(
        self, chosen: dict[str, str], image: str | None, ready: Stack | None
    ) -> tuple[service_values.ServiceFacts, dict[str, str]]:
        """Facts and values, if nothing is wrong with them."""
        self._shown.say("looking at network, image and model")
        before = {} if ready is None else ready.parameters
        with self._clients.asking("sts:GetCallerIdentity") as sts:
            account = str(sts.get_caller_identity()["Account"])
        wrong = []
        if chosen.get(MODEL):
            try:
                chosen = {**chosen, MODEL: self._model(chosen[MODEL])}
            except ModelError as error:
                wrong.append(str(error).rstrip("."))
                del chosen[MODEL]
        facts = service_facts.look(
            self._clients,
            account=account,
            subnets=self._outputs.get("SubnetIds", ""),
            image=image,
            certificate=chosen.get("CertificateArn", before.get("CertificateArn", "")),
        )
        values = service_values.values(self._deployment, self._service, chosen, self._outputs, ready, facts)
        wrong += service_values.problems(values, facts)
        if wrong:
            raise SettingsError(". ".join(wrong) + ". Nothing was changed.")
        return facts, values

    def _model(self, model: str) -> str:
        """NAME/VERSION of ``NAME``, ``NAME@VERSION`` or ``NAME/VERSION``."""
        bucket, prefix = self._outputs.get("S3BucketName", ""), self._outputs.get("S3Prefix", "")
        registry = ModelRegistry(BucketObjects(self._clients.access, bucket), bucket, f"{prefix}/" if prefix else "")
        name, _, version = model.replace("/", "@").partition("@")
        found = registry.version(name, version) if version else registry.current(name)
        return f"{found.name}/{found.version}"

    # --- the stack --------------------------------------------------------------------------------------------------

    def _watch(self, sleep: Callable[[float], None]) -> Watch:
        return Watch(self._formation, self._shown.on_event, timeout_s=self._timeout_s, sleep=sleep, clock=self._clock)

    def _usable(self, watch: Watch) -> Stack | None:
        """The stack, once nobody changes it; `None` where it is to be made."""
        stack = stacks.find(self._formation, service_values.stack_name(self._deployment, self._service))
        if stack is None:
            return None
        stacks.require_ours(stack)
        stack = watch.settled(stack)
        if stack.is_gone:
            return None
        if stack.is_ready or stack.is_empty_shell or stack.status == FAILED_CREATION:
            return stack
        next_step = (
            "Continue its rollback in the CloudFormation console, then try again."
            if stack.status == "UPDATE_ROLLBACK_FAILED"
            else f"Remove what is left with `cirro serve destroy {self._service}`, then try again."
        )
        raise ServingError(f"stack {stack.name!r} is {stack.status}{because(stack.reason)}. {next_step}")

    def _change_set(self, watch: Watch, values: Mapping[str, str], stack: Stack | None) -> ChangeSet | None:
        name = service_values.stack_name(self._deployment, self._service)
        self._shown.say(f"comparing the stack {name} with its template")
        request = change_sets.build_request(
            name,
            stack,
            body=templates.body(service_values.TEMPLATE),
            values=values,
            kept=(),
            tags={plans.TAG: self._deployment},
        )
        return change_sets.make(self._formation, watch, request, stack)

    def _remove(self, watch: Watch, stack: Stack) -> None:
        self._shown.say(f"removing the rest of the stack {stack.name}, whose creation failed")
        watch.begin(stack)
        stacks.begin_delete(self._formation, stack)
        gone = watch.ended(stack.stack_id)
        if not gone.is_gone:
            raise watch.failure(gone, "deleted")

    def _execute(self, change_set: ChangeSet) -> Stack:
        before = stacks.get(self._formation, change_set.stack_id)
        verb = "created" if before.is_empty_shell else "updated"
        self._shown.say(f"{'creating' if before.is_empty_shell else 'updating'} the stack {before.name}")
        events = ServiceEvents(self._clients, before, self._service, self._shown.on_message, clock=self._clock)

        def rest(seconds: float) -> None:
            self._sleep(seconds)
            events.look()

        watch = self._watch(rest)
        watch.begin(before)
        change_sets.execute(self._formation, before.name, change_set)
        after = watch.ended(change_set.stack_id)
        events.look(now=True)
        if after.status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            raise ServingError(taken_back(self._service, str(watch.failure(after, verb)), events))
        described = running_service.describe(self._clients, after.outputs) or {}
        if described.get("taskDefinition") not in (None, after.outputs.get("TaskDefinition")):
            # ECS went back by itself, and CloudFormation did not notice (aws/containers-roadmap, 1205).
            why = f"ECS does not run {after.outputs.get('TaskDefinition')}, which the stack asks for"
            raise ServingError(taken_back(self._service, why, events))
        return after

    # --- the answer -------------------------------------------------------------------------------------------------

    def _answered(self, stack: Stack | None, *, changed: bool) -> ServedService:
        assert stack is not None
        outputs, parameters = stack.outputs, stack.parameters
        certificate = parameters.get("CertificateArn", "")
        domain = service_facts.certificate_of(self._clients, certificate).domain if certificate else ""
        self._shown.say("waiting until the load balancer answers")

        def healthy() -> int:
            found = running_service.targets(self._clients, outputs["TargetGroup"])
            return sum(each.state == "healthy" for each in found)

        reached = readiness.wait(
            outputs["Url"],
            parameters.get("HealthPath", "/"),
            domain,
            healthy,
            int(parameters.get("MinTasks", "1")),
            reachable=parameters.get("AssignPublicIp") == "ENABLED" or service_facts.is_emulated(self._clients),
            sleep=self._sleep,
            clock=self._clock,
        )
        return ServedService(self._service, changed, outputs, parameters, domain, reached)


def taken_back(service: str, why: str, events: ServiceEvents) -> str:
    """The message about a change that AWS took back: CloudFormation's and ECS's words, and how tasks failed.

    Args:
        service: Name of the service.
        why: What CloudFormation says.
        events: What ECS said meanwhile.
    """
    said = [each for each in events.messages if "deployment failed" in each]
    said = said or [each for each in events.messages if "failed" in each or "unable" in each]
    text = f"the change of the service {service!r} was taken back by itself, and what it served before goes on: {why}"
    if " could not be created" in why:
        text = f"the service {service!r} could not be made: {why}"
    if said:
        text = f"{text}\nECS said: {said[-1]}"
    different = {each.reason: each for each in reversed(events.failed)}
    for task in list(different.values())[:MOST_TOLD]:
        text = f"{text}\n{task_ends.in_words(task)}"
    if len(events.failed) > 1:
        text = f"{text}\n{len(events.failed)} tasks failed in all."
    return text
