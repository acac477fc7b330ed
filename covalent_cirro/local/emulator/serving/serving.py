"""ECS and Elastic Load Balancing of one region, as the emulator and its CloudFormation use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore import xform_name

from covalent_cirro.local.emulator.batch.model import Json


class Serving:
    """ECS and Elastic Load Balancing of one account and region.

    Args:
        client: Gives a boto3 client of a service, whose calls are the emulator's own.
    """

    def __init__(self, client: Callable[[str], Any]) -> None:
        self._client = client

    def ecs(self, operation: str, params: Json) -> Json:
        """Call an operation of ECS, such as ``"CreateService"``; request and answer have the form of the API.

        Raises:
            botocore.exceptions.ClientError: ECS refuses it.
        """
        return self._call("ecs", operation, params)

    def elb(self, operation: str, params: Json) -> Json:
        """Call an operation of Elastic Load Balancing, version 2015-12-01, as `ecs` does.

        Raises:
            botocore.exceptions.ClientError: Elastic Load Balancing refuses it.
        """
        return self._call("elbv2", operation, params)

    def deployment_state(self, cluster: str, service: str) -> Json:
        """``rolloutState`` and ``rolloutStateReason`` of a service's PRIMARY deployment, as DescribeServices has them.

        Args:
            cluster: Name or ARN of the cluster.
            service: Name or ARN of the service.

        Raises:
            KeyError: The cluster has no such service.
        """
        described = self.ecs("DescribeServices", {"cluster": cluster, "services": [service]})["services"]
        if not described:
            raise KeyError(f"cluster {cluster} has no service {service}")
        primary = next(each for each in described[0]["deployments"] if each["status"] == "PRIMARY")
        return {key: primary.get(key, "") for key in ("rolloutState", "rolloutStateReason")}

    def _call(self, service: str, operation: str, params: Json) -> Json:
        answer: Json = getattr(self._client(service), xform_name(operation))(**params)
        answer.pop("ResponseMetadata", None)
        return answer
