"""The engine: clients, store, job definitions and watcher, which all electrons of a server share.

Covalent makes a new executor for each electron, which therefore cannot hold them. There is one engine for each event
loop and `Access`; it closes when its loop ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from covalent_cirro.aws import clients, sessions
from covalent_cirro.aws.batch import MAX_TERMINATED, BatchGateway
from covalent_cirro.aws.capacity import Capacity
from covalent_cirro.aws.image_labels import ImageVersions, fetch
from covalent_cirro.aws.secret_lookups import SecretLookups
from covalent_cirro.aws.single_flight import SingleFlight
from covalent_cirro.aws.store import Store
from covalent_cirro.covalent_server import view
from covalent_cirro.electron.engine.definitions import Definitions
from covalent_cirro.electron.engine.fargate_queues import FargateQueues
from covalent_cirro.electron.engine.live_curves import LiveCurves
from covalent_cirro.electron.engine.live_logs import LiveLogs
from covalent_cirro.electron.engine.stops import Stops
from covalent_cirro.electron.engine.waits import Waits, deadline_s
from covalent_cirro.electron.engine.watcher import Watcher
from covalent_cirro.electron.maps.joined import JoinedLists
from covalent_cirro.jobs import console_links

log = logging.getLogger(__name__)


_IDLE_CHECK_S = 5.0

STORE_PATIENCE_S = 180.0
"""How long calls of a throttled, failing or unreachable S3 are repeated, in addition to botocore's retries."""


class Engine:
    """What all electrons of one account, region and endpoint share.

    Get one from `engine_of`, and use it inside `in_use`.

    Attributes:
        access: Credentials, region and endpoint for which it was opened.
        region: AWS region.
        partition: Second field of an ARN in this region: ``aws``, ``aws-cn``, ``aws-us-gov``.
        store: Documents and blobs.
        batch: AWS Batch.
        definitions: Job definitions.
        watcher: Waits for jobs.
        stops: Ends jobs.
        images: Labels of the images of jobs.
        secrets: Looks up whether secrets of jobs are there.
        capacity: Machines that queues can start.
        fargate_queues: Says what jobs on Fargate have to know of their queue.
        waits: Explains why jobs wait.
        live_logs: Copies the logs of running jobs.
        live_curves: Shows what running jobs report.
        joined: Lists that are stored in parts already.
        logs: Client of CloudWatch Logs, for `job_logs.py`.
        console_region: Region for links to the AWS console; empty where the endpoint is not AWS's.
    """

    def __init__(
        self,
        access: sessions.Access,
        region: str,
        partition: str,
        store: Store,
        batch: BatchGateway,
        images: ImageVersions,
        secrets: SecretLookups,
        capacity: Capacity,
        *,
        console_region: str,
        account_id: Callable[[], Awaitable[str]],
        logs: Any,
    ) -> None:
        self.access = access
        self.partition = partition
        self.region = region
        self.store = store
        self.batch = batch
        self.images = images
        self.secrets = secrets
        self.definitions = Definitions(batch.find_definition, batch.register_definition)
        self.watcher = Watcher(batch.describe)
        self.stops = Stops(batch.terminate, MAX_TERMINATED)
        self.capacity = capacity
        self.fargate_queues = FargateQueues(capacity)
        self.waits = Waits(capacity.look, region=region, profile=access.profile, deadline_s=deadline_s())
        self.live_logs = LiveLogs(store, view.log_files, view.write_sizes)
        self.live_curves = LiveCurves(store, view.lattice_of)
        self.joined = JoinedLists()
        self.console_region = console_region
        self.logs = logs
        self._account_id = account_id
        self._users = 0

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the engine open inside the block, also when it is retired meanwhile."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1

    @property
    def is_in_use(self) -> bool:
        """Whether a block of `in_use` is open."""
        return self._users > 0

    async def role_arn(self, name_or_arn: str) -> str:
        """The ARN of a role, given by name or ARN. Asks STS for the account's number, once."""
        if not name_or_arn or name_or_arn.startswith("arn:"):
            return name_or_arn
        return f"arn:{self.partition}:iam::{await self._account_id()}:role/{name_or_arn}"


async def _ask_account(sts: Any, access: sessions.Access) -> str:
    async def ask() -> str:
        with sessions.translate("sts:GetCallerIdentity", access=access):
            identity = await sts.get_caller_identity()
        return str(identity["Account"])

    return await sessions.patiently(ask, 60.0)


@contextlib.asynccontextmanager
async def _opened(access: sessions.Access) -> AsyncIterator[Engine]:
    with sessions.translate("opening a session", access=access):
        # The first import of aiobotocore takes a second: not on the server's loop.
        session = await asyncio.to_thread(sessions.async_session, access)
        region = sessions.region_of(session, access)
        if await session.get_credentials() is None:
            from botocore.exceptions import NoCredentialsError

            # A client that is made without credentials never gets any.
            raise NoCredentialsError
        partition = await asyncio.to_thread(_partition, session, region)
    make = functools.partial(clients.asynchronous, session, access, region=region)
    async with contextlib.AsyncExitStack() as stack:
        with sessions.translate("making clients", access=access):
            s3 = await stack.enter_async_context(make("s3"))
            batch = await stack.enter_async_context(make("batch"))
            submit = await stack.enter_async_context(make("batch", attempts=1))
            sts = await stack.enter_async_context(make("sts"))
            logs = await stack.enter_async_context(make("logs"))
        blocking_s3 = functools.partial(clients.blocking_s3, session, access, region)
        store = Store(s3, blocking_s3, access, patience_s=STORE_PATIENCE_S)
        stack.callback(store.close)
        later = await stack.enter_async_context(contextlib.AsyncExitStack())
        images = ImageVersions(_clients("ecr", session, access, region, later), fetch, _host(batch), access)
        stack.push_async_callback(images.aclose)
        readers = {service: _clients(service, session, access, region, later) for service in ("secretsmanager", "ssm")}
        account = SingleFlight[str, str](keep=True)
        account_id = functools.partial(account.run, "", functools.partial(_ask_account, sts, access))
        secrets = SecretLookups(readers, access, account_id)
        stack.push_async_callback(secrets.aclose)
        gateway = BatchGateway(batch, submit, access)
        ec2 = _clients("ec2", session, access, region, later)

        async def behind_queues(service: str) -> Any:
            return batch if service == "batch" else await ec2(None)

        console_region = region if console_links.is_aws(str(batch.meta.endpoint_url)) else ""
        engine = Engine(
            access,
            region,
            partition,
            store,
            gateway,
            images,
            secrets,
            Capacity(behind_queues, access),
            console_region=console_region,
            account_id=account_id,
            logs=logs,
        )
        for service in (engine.watcher, engine.waits, engine.live_logs, engine.live_curves, engine.stops):
            stack.push_async_callback(service.aclose)
        yield engine


def _clients(
    service: str, session: Any, access: sessions.Access, own_region: str, stack: contextlib.AsyncExitStack
) -> Callable[[str | None], Awaitable[Any]]:
    """Clients of a service by region, each made when it is first needed: many engines need none."""
    made = SingleFlight[str, Any](keep=True)

    async def make(region: str) -> Any:
        loader = session.get_component("data_loader")
        await asyncio.to_thread(loader.load_service_model, service, "service-2")
        # Two tries: a look at an image, or at what there is, is not worth waiting for.
        return await stack.enter_async_context(clients.asynchronous(session, access, service, region, attempts=2))

    async def client(region: str | None) -> Any:
        where = region or own_region
        return await made.run(where, lambda: make(where))

    return client


def _host(client: Any) -> str:
    """Host and port of a client's endpoint."""
    return urlsplit(str(client.meta.endpoint_url)).netloc


def _partition(session: Any, region: str) -> str:
    try:
        return str(session.get_partition_for_region(region))
    except Exception:  # an unknown region is refused by the first call
        return "aws"


class _Keeper:
    """Keeps an engine open in a task of its loop. When the loop ends, it cancels the task, which closes the engine."""

    def __init__(self, access: sessions.Access) -> None:
        self.ready: asyncio.Future[Engine] = asyncio.get_running_loop().create_future()
        self.retired = asyncio.Event()
        self._task = asyncio.create_task(self._keep(access), name="cirro-engine")

    async def _keep(self, access: sessions.Access) -> None:
        try:
            async with _opened(access) as engine:
                self.ready.set_result(engine)
                await self.retired.wait()
                while engine.is_in_use:
                    await asyncio.sleep(_IDLE_CHECK_S)
        except Exception as error:
            if self.ready.done():
                log.exception("Closing the connections to AWS failed")
            else:
                self.ready.set_exception(error)
        finally:
            _retired.discard(self)
            if not self.ready.done():
                self.ready.cancel()

    async def aclose(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


_keepers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[sessions.Access, _Keeper]] = WeakKeyDictionary()


async def engine_of(access: sessions.Access) -> Engine:
    """The engine of the running loop for an access; it is opened if there is none.

    Raises:
        SettingsError: The engine cannot be opened. The next call tries again.
        AccessDenied: There are no credentials. The next call tries again.
    """
    keepers = _keepers.setdefault(asyncio.get_running_loop(), {})
    keeper = keepers.get(access)
    if keeper is None:
        keeper = keepers[access] = _Keeper(access)
    try:
        return await asyncio.shield(keeper.ready)
    except BaseException:
        if keeper.ready.done() and keepers.get(access) is keeper:
            del keepers[access]
        raise


def retire(engine: Engine) -> None:
    """Have the next electron open a new engine, which reads the credentials again.

    Call it after AWS refused the credentials: botocore keeps what it once read, and the user may have corrected the
    file. Who uses the old engine goes on with it (`Engine.in_use`).
    """
    keepers = _keepers.get(asyncio.get_running_loop(), {})
    keeper = keepers.get(engine.access)
    if keeper is not None and keeper.ready.done() and keeper.ready.result() is engine:
        del keepers[engine.access]
        _retired.add(keeper)
        keeper.retired.set()


_retired: set[_Keeper] = set()  # keeps references to tasks, since the loop has weak references only


async def close_engines() -> None:
    """Close all engines of the running loop. A loop that ends closes them by itself."""
    keepers = _keepers.pop(asyncio.get_running_loop(), {})
    await asyncio.gather(*(keeper.aclose() for keeper in keepers.values()))
