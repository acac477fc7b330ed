"""The facts about a deployment for the checks of ``cirro doctor``. Each is asked for once.

Knows which gateway has a fact; `verdicts` decides what a fact means.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from covalent_cirro.aws.capacity import Capacity
from covalent_cirro.aws.clients import Clients, run_blocking
from covalent_cirro.aws.sessions import Access
from covalent_cirro.covalent_server import config
from covalent_cirro.deployment import stacks, zones
from covalent_cirro.deployment.doctor import account_facts, server_facts, subnet_facts
from covalent_cirro.deployment.doctor.account_facts import Refusal
from covalent_cirro.deployment.doctor.verdicts.caller import Caller
from covalent_cirro.deployment.doctor.verdicts.network import Subnet
from covalent_cirro.deployment.doctor.verdicts.server import InstalledVersions, Server
from covalent_cirro.deployment.images import repository as images
from covalent_cirro.deployment.plans import BUDGET, STACKS
from covalent_cirro.deployment.plans import stack_name as name_of_stack
from covalent_cirro.deployment.stacks import Stack
from covalent_cirro.errors import AccessDenied, ImageError, NotFound, StackError
from covalent_cirro.jobs import image_rules
from covalent_cirro.jobs.findings import Where
from covalent_cirro.jobs.image_rules import EcrImage, ImageFacts, MissingImage
from covalent_cirro.jobs.machines import InstanceType, Need
from covalent_cirro.jobs.queues import Environment, Queue
from covalent_cirro.settings import BY_NAME, Settings, problem, resolve

T = TypeVar("T")

QUEUES = (
    "batch_queue",
    "batch_gpu_queue",
    "batch_on_demand_queue",
    "batch_gpu_on_demand_queue",
    "batch_multi_node_queue",
    "batch_fargate_queue",
)
"""Settings that name a queue."""


class RequestedResources(NamedTuple):
    """What an electron will ask for; `None` for what the executor's settings say. ``memory`` is in GB."""

    vcpu: int | None = None
    memory: float | None = None
    num_gpus: int | None = None


def once(ask: Callable[[Any], T]) -> Callable[[Any], T]:
    """Have a method called once for each `DeploymentFacts`; other threads wait and get the same answer or error."""

    @functools.wraps(ask)
    def answer(self: Any) -> T:
        with self._lock:
            future: Future[T] | None = self._answers.get(ask.__name__)
            first = future is None
            if future is None:
                future = self._answers[ask.__name__] = Future()
        if first:
            try:
                future.set_result(ask(self))
            except BaseException as error:
                future.set_exception(error)
        return future.result()

    return answer


class DeploymentFacts:
    """Facts about a deployment.

    Args:
        access: Credentials and region; the executor's settings fill in what is `None`.
        stack_name: Name of the deployment.
        asked: What an electron will ask for.
    """

    def __init__(self, access: Access, stack_name: str, asked: RequestedResources) -> None:
        self.stack_name = stack_name
        self._lock = threading.Lock()
        self._answers: dict[str, Future[Any]] = {}
        self._asked = {key: value for key, value in asked._asdict().items() if value is not None}
        self.section = config.executor_section()
        self.access = access.completed(self.section)
        self.clients = Clients(self.access)
        self.capacity = Capacity(self.clients.awaited, self.access)

    @once
    def where(self) -> Where:
        """The deployment, as commands in remedies name it."""
        return Where(self.stack_name, self.clients.region, self.access.profile)

    @once
    def identity(self) -> Caller | Refusal:
        """The caller."""
        return account_facts.identity(self.clients)

    @property
    def caller(self) -> Caller:
        """The caller; only for checks that need the check ``credentials``."""
        identity = self.identity()
        assert isinstance(identity, Caller)
        return identity

    # --- the deployment ---------------------------------------------------------------------------------------------

    @once
    def stacks(self) -> dict[str, Stack | None]:
        """The stacks by part; that of the budget only where it exists."""
        client = self.clients("cloudformation")
        with ThreadPoolExecutor(len(STACKS)) as pool:
            found = pool.map(lambda part: stacks.find(client, name_of_stack(self.stack_name, part)), STACKS)
            named = dict(zip(STACKS, found, strict=True))
        there = {part: None if stack is None or stack.is_empty_shell else stack for part, stack in named.items()}
        return {part: stack for part, stack in there.items() if stack is not None or part != BUDGET}

    @once
    def outputs(self) -> dict[str, str]:
        """Outputs of all stacks; none where the credentials may not read stacks, as those for submitting only."""
        try:
            found = self.stacks()
        except AccessDenied:
            return {}
        return {key: value for stack in found.values() if stack for key, value in stack.outputs.items()}

    @once
    def deployed_settings(self) -> dict[str, str]:
        """The executor's settings in the outputs; none where the deployment is not complete."""
        try:
            return stacks.settings_from_outputs(self.outputs())
        except StackError:
            return {}

    @once
    def settings(self) -> Settings:
        """The settings of an electron: the config's, and the deployment's where the config has none.

        Raises:
            SettingsError: A value of the config, or of ``asked``, is impossible.
        """
        section = {
            key: value
            for key, value in self.section.items()
            if key in BY_NAME and value not in (None, "") and value != BY_NAME[key].default
        }
        deployed = {key: value for key, value in self.deployed_settings().items() if key not in section}
        section = {key: value for key, value in section.items() if key not in self._asked}
        return resolve(self._asked, {**deployed, **section})

    @property
    def settings_problems(self) -> list[str]:
        """Why values of the config cannot be used, one text for each."""
        told = (problem(name, value) for name, value in self.section.items() if name in BY_NAME and value != "")
        return [text for text in told if text is not None]

    @once
    def need(self) -> Need:
        """What an electron asks for."""
        settings = self.settings()
        return Need(settings.size.vcpus, settings.memory_mib, settings.num_gpus)

    # --- queues and instances ---------------------------------------------------------------------------------------

    @once
    def all_queues(self) -> list[Queue]:
        """Every queue of the account and region."""
        return run_blocking(self.capacity.queues())

    @once
    def wanted_queues(self) -> dict[str, str]:
        """The queues that electrons may be submitted to, by setting."""
        settings = self.settings()
        return {name: queue for name in QUEUES if (queue := getattr(settings, name))}

    def queue(self, name: str) -> Queue | None:
        """A queue by name or ARN; `None` where it does not exist."""
        return next((queue for queue in self.all_queues() if name in (queue.name, queue.arn)), None)

    @once
    def found_queues(self) -> list[Queue]:
        """The queues of `wanted_queues` that exist, each once."""
        found = {queue.arn: queue for name in self.wanted_queues().values() if (queue := self.queue(name)) is not None}
        return list(found.values())

    @once
    def queues_of_electron(self) -> list[Queue]:
        """The queues that an electron with these settings would use."""
        settings, wanted = self.settings(), self.wanted_queues()
        names = [settings.queue_option, settings.on_demand_queue_option]
        found = {
            queue.arn: queue for each in names if each in wanted and (queue := self.queue(wanted[each])) is not None
        }
        return list(found.values())

    @once
    def environments(self) -> list[Environment]:
        """The compute environments of `found_queues`, each once."""
        arns = {arn: None for queue in self.found_queues() for arn in queue.environments}
        return run_blocking(self.capacity.environments(list(arns)))

    @once
    def _type_names(self) -> list[str]:
        names = {name: None for each in self.environments() if each.has_instances for name in each.instance_types}
        return list(names)

    @once
    def instance_types(self) -> dict[str, InstanceType]:
        """The region's instance types that `environments` may start."""
        return run_blocking(self.capacity.instance_types(self._type_names()))

    @once
    def offered_zones(self) -> dict[str, frozenset[str]]:
        """The zones that have an instance type, by type."""
        return zones.offered_zones(self.clients, self._type_names())

    @once
    def subnets(self) -> dict[str, Subnet]:
        """The subnets of `environments` that exist, by id."""
        return subnet_facts.subnets(self.clients, [subnet for each in self.environments() for subnet in each.subnets])

    @once
    def image_place(self) -> EcrImage | None:
        """The image in ECR; `None` for an image in another registry."""
        return image_rules.ecr_image(self.settings().container_image_uri, urlsplit(self.clients.endpoint_url).netloc)

    @once
    def image(self) -> ImageFacts | MissingImage | None:
        """Facts of the image; `None` where its configuration cannot be parsed.

        Raises:
            AccessDenied, AwsError: ECR refused or could not be reached.
        """
        at = self.image_place()
        assert at is not None
        clients = self.clients
        if at.region not in (None, clients.region):
            clients = Clients(self.access._replace(region=at.region))
        host = self.settings().container_image_uri.partition("/")[0]
        repository = images.Repository(clients("ecr"), clients.access, f"{host}/{at.repository}")
        try:
            digest = at.digest
            if digest is None:
                found = images.find(repository, at.tag)
                if found is None:
                    tags = tuple(tag for each in images.listing(repository) for tag in each.tags)
                    return MissingImage(f"no image has the tag {at.tag!r}", tags)
                digest = found.digest
            return images.facts(repository, [digest], self.settings().architecture).get(digest)
        except (NotFound, ImageError) as error:
            return MissingImage(str(error), None)

    # --- Covalent ---------------------------------------------------------------------------------------------------

    @once
    def here(self) -> InstalledVersions:
        """What this Python has installed."""
        return server_facts.here()

    @once
    def server(self) -> Server:
        """The Covalent server."""
        return server_facts.server()
