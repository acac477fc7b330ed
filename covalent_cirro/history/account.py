"""Where electrons are looked for: an account, and the bucket, queues and log group of an executor there.

A call that AWS throttles is made again, more slowly. This module must not know jobs, nor what a call says.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from covalent_cirro.aws.capacity import Capacity
from covalent_cirro.aws.clients import Clients, run_blocking
from covalent_cirro.aws.sessions import Access, translate
from covalent_cirro.contract.places import Location
from covalent_cirro.covalent_server import config
from covalent_cirro.deployment import stacks
from covalent_cirro.deployment.plans import PARTS, stack_name
from covalent_cirro.errors import AccessDenied, AwsError, StackError
from covalent_cirro.jobs import console_links
from covalent_cirro.jobs.remedies import OWN_QUEUES
from covalent_cirro.settings import BY_NAME, Settings, resolve

T = TypeVar("T")
U = TypeVar("U")

THREADS = 8
"""Calls at the same time. AWS publishes no rate for ListJobs and DescribeJobs, and throttles them early."""

PATIENCE_S = 60.0
"""Seconds for which a throttled or failing call is repeated, on top of botocore's own retries."""

LONGEST_PAUSE_S = 10.0

QUEUE_KINDS = tuple(end.removeprefix("-") for end in OWN_QUEUES)
"""Kinds of queues. A queue's name is that of its deployment and its kind (``infra/compute.yaml``)."""


class Queues(NamedTuple):
    """Names of job queues: ``ours`` are those of the deployment and the settings, ``others`` all others."""

    ours: tuple[str, ...]
    others: tuple[str, ...]


class Account:
    """An account, and what an executor there is set to. Safe for threads; close it.

    Attributes:
        access: Credentials and region.
        deployment: Name of the deployment.
        settings: The executor's.
        clients: Clients of AWS's services.
        capacity: What stands behind job queues.
        names: Names of electron and lattice that were read from a call, by the call's location.
    """

    def __init__(
        self,
        access: Access,
        deployment: str,
        settings: Settings,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.access = access
        self.deployment = deployment
        self.settings = settings
        self.clients = Clients(access)
        self.capacity = Capacity(self.clients.awaited, access)
        self.names: dict[Location, tuple[str, str] | None] = {}
        self._patience_s = patience_s
        self._queues: Queues | None = None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="cirro-history")

    def __enter__(self) -> Account:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def region(self) -> str:
        """The region that calls go to."""
        return self.clients.region

    @property
    def partition(self) -> str:
        """``"aws"`` or another partition of AWS; empty where calls go to another endpoint, which has no console."""
        meta = self.clients("batch").meta
        return str(meta.partition) if console_links.is_aws(str(meta.endpoint_url)) else ""

    def ask(self, operation: str, call: Callable[[], T], of: str = "", *, patience_s: float = PATIENCE_S) -> T:
        """Make a call, and repeat it with growing pauses while AWS throttles or fails.

        Args:
            operation: The operation, ``"batch:ListJobs"``.
            call: Makes the call.
            of: What the call is about, for messages.
            patience_s: Seconds for which it is repeated.

        Raises:
            AccessDenied, NotFound, AwsError: At once, if a retry cannot help; else after ``patience_s``.
        """
        import tenacity

        patience_s = min(patience_s, self._patience_s)
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, AwsError) and error.retryable),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=min(LONGEST_PAUSE_S, patience_s / 2)),
            stop=tenacity.stop_after_delay(patience_s),
            reraise=True,
        ):
            with attempt, translate(operation, access=self.access, of=of):
                return call()
        raise AssertionError("tenacity returns or raises")

    def each(self, call: Callable[[T], U], of: list[T]) -> list[U]:
        """Results of a call for each item, in their order; `THREADS` run at a time. Not to be used inside ``call``."""
        return list(self._threads.map(call, of))

    @property
    def queues(self) -> Queues:
        """The job queues of the account and region."""
        if self._queues is None:
            self._queues = self._find_queues()
        return self._queues

    def our_queues(self) -> tuple[str, ...]:
        """Names of the job queues that electrons are submitted to.

        Raises:
            StackError: None of them exists in the account and region.
        """
        if not self.queues.ours:
            raise StackError(
                f"with {self.access.named()}, region {self.region} has no job queue of the deployment "
                f"{self.deployment!r}, and none that is called {self.settings.batch_queue!r}. Give the --profile, "
                "--region and --stack-name of a deployment; `cirro deploy` makes one."
            )
        return self.queues.ours

    def _find_queues(self) -> Queues:
        settings = self.settings
        own = [settings.batch_queue, settings.batch_gpu_queue]
        own += [settings.batch_on_demand_queue, settings.batch_gpu_on_demand_queue]
        own += [settings.batch_multi_node_queue, settings.batch_fargate_queue]
        configured = [_name(queue) for queue in own if queue]

        try:
            found = self.ask("batch:DescribeJobQueues", lambda: run_blocking(self.capacity.queues()))
        except AccessDenied:
            return Queues(tuple(dict.fromkeys(configured)), ())
        names = [each.name for each in found]
        ours = {*configured, *(f"{self.deployment}-{kind}" for kind in QUEUE_KINDS)}
        return Queues(tuple(name for name in names if name in ours), tuple(name for name in names if name not in ours))


def open_account(access: Access, deployment: str) -> Account:
    """The account in which electrons run, with the executor's settings.

    Args:
        access: Credentials and region; the executor's settings fill in what is `None`.
        deployment: Name of the deployment. Unless it is the one that was deployed last, whose settings are in the
            config, its settings are read from its stacks.

    Raises:
        SettingsError: The config has a value that cannot work.
        StackError: There is no such deployment.
        AccessDenied, AwsError: The stacks cannot be read.
    """
    section = {key: value for key, value in config.executor_section().items() if key in BY_NAME}
    settled = access.completed(section)
    last = config.last_deploy()
    if last is not None and deployment != last.stack_name:
        section = _settings_of(settled, deployment)
    # Covalent writes "" for an option that nobody set.
    return Account(settled, deployment, resolve({}, {key: value for key, value in section.items() if value != ""}))


def _settings_of(access: Access, deployment: str) -> dict[str, Any]:
    formation = Clients(access)("cloudformation")
    found = [stacks.find(formation, stack_name(deployment, part)) for part in PARTS]
    outputs = {key: value for stack in found if stack for key, value in stack.outputs.items()}
    if not outputs:
        raise StackError(
            f"nothing is deployed as {deployment!r} in {formation.meta.region_name}: give the --stack-name and "
            "--region of a deployment, or none for the last one."
        )
    return dict(stacks.settings_from_outputs(outputs))


def _name(queue: str) -> str:
    return queue.rpartition("/")[2]
