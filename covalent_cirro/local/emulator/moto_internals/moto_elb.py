"""Reads load balancers, listeners and target groups of moto; gives targets and ports to the balancers of the emulator.

moto keeps what the API sets. Which targets there are, how they are, and where a balancer answers is `serving`'s.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

from covalent_cirro.local.emulator import open_emulators
from covalent_cirro.local.emulator.batch.model import Json
from covalent_cirro.local.emulator.moto_internals.loading import IMPORTING, once, replace

if TYPE_CHECKING:
    from covalent_cirro.local.emulator.serving.load_balancers import LoadBalancers

IDLE_TIMEOUT_S = 60.0
"""Default of ``idle_timeout.timeout_seconds`` (ELB User Guide, Load balancer attributes)."""


class HealthCheck(NamedTuple):
    """How a target group checks its targets.

    Attributes:
        path: Path and query of the request.
        port: Port of the request; `None`: that on which the target gets requests.
        interval_s: Seconds between two checks.
        timeout_s: Seconds without an answer after which a check has failed.
        healthy: Successes in a row that make an unhealthy target healthy.
        unhealthy: Failures in a row that make a target unhealthy.
        codes: Status codes of success, such as ``200-299,301``.
        enabled: Whether targets are checked at all.
    """

    path: str
    port: int | None
    interval_s: float
    timeout_s: float
    healthy: int
    unhealthy: int
    codes: str
    enabled: bool


class Listener(NamedTuple):
    """A listener: ``HTTP`` or ``HTTPS``, its port on AWS, its default action, and the ARN of its certificate."""

    protocol: str
    port: int
    action: Json
    certificate: str | None


@functools.lru_cache(maxsize=1)
def _backends() -> Any:
    """moto's backends. Imported once: each request to a balancer reads them, and must not wait for another import."""
    with IMPORTING:
        from moto.elbv2.models import elbv2_backends

    return elbv2_backends


def _backend(account: str, region: str) -> Any:
    return _backends()[account][region]


def listeners(account: str, region: str, balancer: str) -> list[Listener]:
    """The listeners of a balancer, in the order in which they were made; none where it was deleted."""
    found = _backend(account, region).load_balancers.get(balancer)
    if found is None:
        return []
    return [
        Listener(each.protocol, int(each.port), each.default_actions[-1].data, each.certificate)
        for each in list(found.listeners.values())
        if each.default_actions
    ]


def idle_timeout_s(account: str, region: str, balancer: str) -> float:
    """Seconds without data after which a balancer gives a request up."""
    found = _backend(account, region).load_balancers.get(balancer)
    return float(IDLE_TIMEOUT_S if found is None else found.attrs.get("idle_timeout.timeout_seconds", IDLE_TIMEOUT_S))


def health_check(account: str, region: str, group: str) -> HealthCheck | None:
    """The health check of a target group; `None` where the group was deleted."""
    found = _backend(account, region).target_groups.get(group)
    if found is None:
        return None
    port = str(found.health_check_port or "traffic-port")
    return HealthCheck(
        path=found.health_check_path or "/",
        port=None if port == "traffic-port" else int(port),
        interval_s=float(found.health_check_interval_seconds),
        timeout_s=float(found.health_check_timeout_seconds),
        healthy=int(found.healthy_threshold_count),
        unhealthy=int(found.unhealthy_threshold_count),
        codes=str(getattr(found, "matcher", {}).get("HttpCode") or "200"),
        enabled=str(found.health_check_enabled).lower() == "true",
    )


def deregistration_delay_s(account: str, region: str, group: str) -> float:
    """Seconds that a target which is deregistered has for its requests in progress."""
    found = _backend(account, region).target_groups.get(group)
    return 0.0 if found is None else float(found.attributes["deregistration_delay.timeout_seconds"])


def takes_least_busy(account: str, region: str, group: str) -> bool:
    """Whether a target group gives a request to the target with the fewest in progress, and not in turn."""
    found = _backend(account, region).target_groups.get(group)
    algorithm = None if found is None else found.attributes.get("load_balancing.algorithm.type")
    return bool(algorithm == "least_outstanding_requests")


def balancers_of(account: str, region: str, group: str) -> list[str]:
    """ARNs of the balancers whose listeners forward to a target group."""
    backend = _backend(account, region)
    return [
        arn
        for arn, balancer in list(backend.load_balancers.items())
        for listener in list(balancer.listeners.values())
        for action in listener.default_actions
        if group in backend._get_target_group_arns_from(action_data=action.data)
    ]


def has_group(account: str, region: str, group: str) -> bool:
    """Whether there is such a target group."""
    return group in _backend(account, region).target_groups


def certificate(account: str, region: str, arn: str) -> tuple[bytes, bytes] | None:
    """Certificate and private key of ACM, in PEM; `None` where ACM has no such certificate."""
    with IMPORTING:
        from moto.acm.models import CertificateNotFound, acm_backends

    try:
        found = acm_backends[account][region].get_certificate(arn)
    except CertificateNotFound:
        return None
    return bytes(found.cert), bytes(found.key)


def _balancers(backend: Any) -> LoadBalancers:
    return open_emulators.get(backend.account_id).serving_in(backend.region_name).load_balancers


def _pairs(targets: list[Json], default_port: Any) -> list[tuple[str, int]]:
    return [(str(each["Id"]), int(each.get("Port") or default_port)) for each in targets]


@once
def install() -> None:
    """Give targets and ports to the balancers of the emulator."""
    from moto.elbv2 import models
    from moto.elbv2.exceptions import InvalidTargetError, TargetGroupNotFoundError, ValidationError

    backends = models.ELBv2Backend
    create_balancer, delete_balancer = backends.create_load_balancer, backends.delete_load_balancer
    delete_group = backends.delete_target_group

    def group_of(self: Any, arn: str) -> Any:
        found = self.target_groups.get(arn)
        if found is None:
            raise TargetGroupNotFoundError
        return found

    def create_load_balancer(self: Any, *args: Any, **kwargs: Any) -> Any:
        made = create_balancer(self, *args, **kwargs)
        made.dns_name = f"localhost:{_balancers(self).open(made.arn)}"
        return made

    def delete_load_balancer(self: Any, arn: str) -> None:
        _balancers(self).remove(arn)
        for group in self.target_groups.values():
            group.load_balancer_arns = [each for each in group.load_balancer_arns if each != arn]
        delete_balancer(self, arn)

    def delete_target_group(self: Any, target_group_arn: str) -> Any:
        deleted = delete_group(self, target_group_arn)
        _balancers(self).forget_group(target_group_arn)
        return deleted

    def register_targets(self: Any, target_group_arn: str, instances: list[Json]) -> None:
        group = group_of(self, target_group_arn)
        _balancers(self).register(target_group_arn, _pairs(instances, group.port))

    def deregister_targets(self: Any, target_group_arn: str, instances: list[Json]) -> None:
        group = group_of(self, target_group_arn)
        if not _balancers(self).deregister(target_group_arn, _pairs(instances, group.port)):
            raise InvalidTargetError

    def describe_target_health(self: Any, target_group_arn: str, targets: list[Json]) -> list[Any]:
        group = group_of(self, target_group_arn)
        asked = _pairs(targets, group.port) if targets else None
        return [
            models.FakeHealthStatus(
                each.host, str(each.port), str(each.port), each.state, each.reason or None, each.description or None
            )
            for each in _balancers(self).health(target_group_arn, asked)
        ]

    def create_rule(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise ValidationError("the emulator has no listener rules: use the default action of a listener")

    for new in (
        create_load_balancer,
        delete_load_balancer,
        delete_target_group,
        register_targets,
        deregister_targets,
        describe_target_health,
        create_rule,
    ):
        replace(backends, new.__name__, new)
