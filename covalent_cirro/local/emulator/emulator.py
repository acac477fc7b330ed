"""Puts the emulated AWS together: one port for AWS Batch, moto and the registry. Its end leaves nothing running."""

from __future__ import annotations

import atexit
import functools
import secrets
import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from covalent_cirro import private
from covalent_cirro.errors import EmulatorError
from covalent_cirro.local.emulator import keys, open_emulators
from covalent_cirro.local.emulator.account import Account
from covalent_cirro.local.emulator.attempts.attempt_threads import runtime
from covalent_cirro.local.emulator.attempts.runtime import ImageConfig
from covalent_cirro.local.emulator.attempts.tasks import Tasks
from covalent_cirro.local.emulator.batch.batch_api import DEFAULT_LIMITS, Limits
from covalent_cirro.local.emulator.batch.model import Json, Timing
from covalent_cirro.local.emulator.batch.service import Batch
from covalent_cirro.local.emulator.context import EmulatorContext
from covalent_cirro.local.emulator.ecr.images import Images, RepositoryRules
from covalent_cirro.local.emulator.ecr.registry import USER, Registry, Tokens
from covalent_cirro.local.emulator.faults import Faults
from covalent_cirro.local.emulator.http.authentication import Authentication
from covalent_cirro.local.emulator.http.call_counts import CallCounts
from covalent_cirro.local.emulator.http.control_routes import ControlRoutes, is_tasks, status
from covalent_cirro.local.emulator.http.request_router import RequestRouter
from covalent_cirro.local.emulator.http.server import Server
from covalent_cirro.local.emulator.iam.enforcement import IamEnforcement
from covalent_cirro.local.emulator.keys import OWN_ID, Key
from covalent_cirro.local.emulator.moto_internals import loading, moto_iam, moto_s3
from covalent_cirro.local.emulator.moto_internals.loading import MotoApplication
from covalent_cirro.local.emulator.serving.serving import Serving

REGION = "us-east-1"
REGISTRY = "registry"
"""Folder of the images, in the state folder."""


class Emulator:
    """An emulated AWS in this process, answering on a free loopback port from `start` to `close`.

    moto keeps its state for the whole process, by account: each emulator that is open gets an account of its own, and
    `close` removes the state of that account. Bucket names are shared, as among the accounts of AWS.

    Args:
        port: 0 takes a free one.
        state_dir: Folder of jobs' working folders, the key and images; `None` makes one, and `close` removes it.
        region: The region of requests that name none.
        docker: Run jobs as containers of their images instead of as processes.
        timing: Durations; ``Timing(scale=0.01)`` makes a time limit of a minute 0.6 s.
        limits: Calls a second by Batch operation, above which AWS Batch throttles.
        quota_vcpus: vCPUs of all emulated instances together, like EC2's quota; `None` for no limit.
        iam: Check each call against the policies of its caller (`iam.enforcement`).
        images: Configurations of images by name, for jobs that are processes.

    Attributes:
        key: The access key that signs calls (`keys.Key`), after `start`; the file `credentials` of the state folder has
            it.
        web_identity: The token with which STS's AssumeRoleWithWebIdentity accepts a caller as a CI service.

    Raises:
        EmulatorError: The port is taken, or no Docker engine answers.
        NotPrivate: Another user can reach the state folder.
    """

    def __init__(
        self,
        port: int = 0,
        state_dir: str | Path | None = None,
        *,
        region: str = REGION,
        docker: bool = False,
        timing: Timing | None = None,
        limits: dict[str, float] | None = None,
        quota_vcpus: float | None = None,
        images: Mapping[str, ImageConfig] | None = None,
        iam: bool = False,
    ) -> None:
        self.region = region
        self.account = ""
        self.endpoint_url = ""
        self.port = port
        self.key = Key("", "")
        self.web_identity = secrets.token_urlsafe(30)
        self.calls = CallCounts()
        self.limits = Limits(DEFAULT_LIMITS if limits is None else limits)
        self.faults = Faults(changed=self._faults_changed)
        self.tasks = Tasks(self._assume)
        self.image_configs = dict(images or {})
        self._timing = Timing() if timing is None else timing
        self._docker = docker
        self._quota_vcpus = quota_vcpus
        self._enforces_iam = iam
        self._own_dir = state_dir is None
        self.state_dir = Path(tempfile.mkdtemp(prefix="cirro-emulator-")) if state_dir is None else Path(state_dir)
        self.images = Images(self.state_dir / REGISTRY, self._repository_rules, lambda: self.account)
        self.tokens = Tokens()
        self.account_settings = Account(lambda: self.account, self.batch)
        self._batches: dict[str, Batch] = {}
        self._servings: dict[str, Serving] = {}
        self._lock = threading.RLock()
        self._server: Server | None = None
        self._context: EmulatorContext | None = None
        self._session: Any = None

    # --- start and end ----------------------------------------------------------------------------------------------

    def start(self) -> Emulator:
        """Begin to answer."""
        for folder in (self.state_dir, self.state_dir / "jobs"):
            private.folder(folder)
        self.key = keys.key_of(self.state_dir)
        engine = runtime(self.state_dir / "jobs", docker=self._docker, images=self.image_configs, login=self._login)
        router = RequestRouter(
            account="",
            region=self.region,
            moto=MotoApplication([moto_s3.install]),
            registry=Registry(self.images, self.tokens, lambda: self.endpoint_url),
            batch=self.batch,
            serving=self.serving_in,
            callers=Authentication(self.key, self._secret_of, self.web_identity),
            is_tasks=is_tasks,
            control=ControlRoutes(
                self.region,
                lambda: dict(self._batches),
                self.faults,
                self.calls,
                self.limits,
                self.tasks,
                self.image_configs,
                self.account_settings,
                lambda: [each.tasks for each in list(self._servings.values())],
            ),
            job_of=self.tasks.job_of,
            account_settings=self.account_settings,
            install=_replace_in_moto,
            faults=self.faults,
            calls=self.calls,
            limits=self.limits,
        )
        try:
            self._server = Server(router, self.port)
        except OSError as error:
            raise EmulatorError(
                f"the emulator cannot listen on 127.0.0.1:{self.port}: {error.strerror}; take another port, or 0 for a "
                "free one"
            ) from error
        self.port = self._server.port
        self.endpoint_url = f"http://127.0.0.1:{self.port}"
        self.account = router.account = open_emulators.add(self)
        router.iam = iam = IamEnforcement(self.account, self.region, self.batch, self._enforces_iam, self.key.ids)
        self._context = EmulatorContext(
            account=self.account,
            endpoint_url=self.endpoint_url,
            runtime=engine,
            faults=self.faults,
            tasks=self.tasks,
            timing=self._timing,
            files=self.state_dir / "files",
            efs=lambda region: self.client("efs", region_name=region, aws_access_key_id=keys.OWN_ID),
            quota_vcpus=self._quota_vcpus,
            role_refused=iam.role_refused if self._enforces_iam else None,
        )
        self._server.start()
        atexit.register(self.close)
        return self

    def close(self, *, forget: bool = True) -> None:
        """End all jobs with their descendants, and answer no more. Does nothing the second time.

        Args:
            forget: Remove what moto holds of the account; a process that ends anyway need not do that.
        """
        with self._lock:
            server, self._server = self._server, None
            if server is None:
                return
            batches, servings = list(self._batches.values()), list(self._servings.values())
        atexit.unregister(self.close)
        for batch in batches:
            batch.close()
        for serving in servings:
            serving.close()
        assert self._context is not None
        self._context.runtime.close()
        server.close()
        open_emulators.remove(self.account)
        if forget:
            loading.forget_account(self.account)
        self.images.close()
        shutil.rmtree(self.state_dir if self._own_dir else self.state_dir / "jobs", ignore_errors=True)

    def __enter__(self) -> Emulator:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- use --------------------------------------------------------------------------------------------------------

    def batch(self, region: str | None = None) -> Batch:
        """The AWS Batch of a region, made when first asked for."""
        name = region or self.region
        with self._lock:
            if self._context is None:
                raise EmulatorError("the emulator is not running: call start() first")
            if name not in self._batches:
                self._batches[name] = Batch(self._context, name)
            return self._batches[name]

    @property
    def serving(self) -> Serving:
        """ECS services and load balancers of the emulator's region."""
        return self.serving_in(self.region)

    def serving_in(self, region: str) -> Serving:
        """ECS services and load balancers of a region, made when first asked for."""
        with self._lock:
            if self._context is None:
                raise EmulatorError("the emulator is not running: call start() first")
            if region not in self._servings:
                own = functools.partial(self.client, region_name=region, aws_access_key_id=OWN_ID)
                self._servings[region] = Serving(self._context, region, functools.lru_cache(own))
            return self._servings[region]

    def client(self, service: str, **options: Any) -> Any:
        """A boto3 client of this AWS, with its key."""
        import boto3

        given: dict[str, Any] = {
            "region_name": self.region,
            "endpoint_url": self.endpoint_url,
            "aws_access_key_id": self.key.id,
            "aws_secret_access_key": self.key.secret,
        }
        with self._lock:  # a session reads each service's model once, and is not safe for threads
            if self._session is None:
                self._session = boto3.session.Session()
            return self._session.client(service, **{**given, **options})

    def status(self) -> Json:
        """As ``GET /_cirro/status``."""
        return status(dict(self._batches))

    def _secret_of(self, access_key: str) -> str | None:
        return self.tasks.secret_of(access_key) or moto_iam.secret_of(self.account, access_key)

    def _assume(self, role_arn: str, session: str, duration_s: int) -> Json:
        return moto_iam.assume_role(self.account, self.region, role_arn, session, duration_s)

    def _login(self, image: str) -> dict[str, str] | None:
        """User and password with which the ECS agent pulls an image; `None` for an image of another registry."""
        if image.partition("/")[0] != self.endpoint_url.partition("://")[2]:
            return None
        return {"username": USER, "password": self.tokens.issue(self.region).password}

    def _repository_rules(self, region: str, name: str) -> RepositoryRules | None:
        from covalent_cirro.local.emulator.moto_internals import moto_ecr

        return moto_ecr.rules(self.account, region, name)

    def _faults_changed(self) -> None:
        for batch in list(self._batches.values()):
            batch.faults_changed()
        for serving in list(self._servings.values()):
            serving.faults_changed()


def _replace_in_moto(service: str) -> None:
    """Replace what moto does in a service, before the first call of that service."""
    if service in ("cloudformation", "iam"):
        moto_iam.install()
    if service == "elasticloadbalancing":
        from covalent_cirro.local.emulator.moto_internals import moto_elb

        moto_elb.install()
    if service == "monitoring":
        from covalent_cirro.local.emulator.moto_internals import moto_cloudwatch

        moto_cloudwatch.install()
    if service == "application-autoscaling":
        from covalent_cirro.local.emulator.moto_internals import moto_target_tracking

        moto_target_tracking.install()
    if service in ("cloudformation", "ecr"):
        from covalent_cirro.local.emulator.moto_internals import moto_ecr

        moto_ecr.install()
    if service == "cloudformation":
        from covalent_cirro.local.emulator.moto_internals import moto_cloudformation, moto_logs

        moto_logs.install()
        moto_cloudformation.install()
