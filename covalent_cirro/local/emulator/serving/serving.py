"""ECS and Elastic Load Balancing of one region, as the emulator and its CloudFormation use them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from botocore import xform_name

from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.context import EmulatorContext
from covalent_cirro.local.emulator.http.answers import Answer
from covalent_cirro.local.emulator.serving import ecs_api
from covalent_cirro.local.emulator.serving.ecs import Ecs
from covalent_cirro.local.emulator.serving.load_balancers import LoadBalancers


class Serving:
    """ECS and Elastic Load Balancing of one account and region.

    Args:
        context: What all regions share.
        region: The region.
        client: Gives a boto3 client of a service, whose calls are the emulator's own.

    Attributes:
        load_balancers: The balancers' ports and targets.
        tasks: Credentials and metadata of tasks.
    """

    def __init__(self, context: EmulatorContext, region: str, client: Callable[[str], Any]) -> None:
        wake = threading.Event()
        self.load_balancers = LoadBalancers(context.account, region, context.timing, wake.set)
        self._ecs = Ecs(context, region, self.load_balancers, wake)
        self.tasks = self._ecs.threads
        self._client = client

    def ecs(self, operation: str, params: Json) -> Json:
        """Call an operation of ECS, such as ``"CreateService"``; request and answer have the form of the API.

        Raises:
            botocore.exceptions.ClientError: ECS refuses it.
        """
        answer: Json = getattr(self._client("ecs"), xform_name(operation))(**params)
        answer.pop("ResponseMetadata", None)
        return answer

    def deployment_state(self, cluster: str, service: str) -> Json:
        """``rolloutState`` and ``rolloutStateReason`` of the deployment that the last create or update began.

        DescribeServices has them for a while only: a deployment that was rolled back is gone with its last task.

        Args:
            cluster: Name or ARN of the cluster.
            service: Name or ARN of the service.

        Raises:
            KeyError: There is no such service.
        """
        with self._ecs.lock:
            found = self._ecs.clusters[cluster.rpartition("/")[2]].services[service.rpartition("/")[2]]
            latest = found.latest or found.primary
            return {"rolloutState": latest.rollout_state, "rolloutStateReason": latest.rollout_reason}

    def answer_ecs(self, operation: str, body: bytes) -> Answer:
        """Answer a request to ECS."""
        return ecs_api.call(self._ecs, operation, body)

    def faults_changed(self) -> None:
        """Faults were added: they may hit tasks."""
        self._ecs.wake.set()

    def close(self) -> None:
        """End all tasks, and close all ports."""
        self._ecs.close()
        self.load_balancers.close()
