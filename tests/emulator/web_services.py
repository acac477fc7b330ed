"""A small web service to run behind a balancer of the emulator, and a few words to do that with."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.emulator.conftest import Aws, poll

PROGRAM = """
import json, os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

version = os.environ.get("VERSION", "1")
if version == "crashes":
    sys.exit("this version does not start")
in_flight = 0

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.partition("?")
        if path == "/health" and version == "sick":
            self.send_error(500)
            return
        if path == "/slow":
            open(query, "w").close()
            while os.path.exists(query):
                time.sleep(0.02)
        if path == "/credentials":
            import urllib.request
            with urllib.request.urlopen(os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]) as answer:
                body = answer.read()
        else:
            body = json.dumps({"version": version, "pid": os.getpid()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Version", version)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *args):
        pass

def stop(*_):
    print("SIGTERM", flush=True)
    if version != "stubborn":
        os._exit(0)

signal.signal(signal.SIGTERM, stop)
server = ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler)
print(f"version {version} listens", flush=True)
server.serve_forever()
"""
"""``/slow?FILE`` makes a file, and answers once somebody has removed it."""


class Answer(NamedTuple):
    """An answer of HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes


def ask(address: str, path: str = "/", method: str = "GET", **options: Any) -> Answer:
    """One request with a connection of its own; ``address`` is ``host:port``."""
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request(method, path, **options)
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


class Web:
    """A balancer, its target group and listener, and a cluster; ``service`` puts a service behind them."""

    def __init__(self, aws: Aws, **group: Any) -> None:
        self.aws = aws
        self.ecs, self.elb = aws.client("ecs"), aws.client("elbv2")
        subnets = aws.client("ec2").describe_subnets()["Subnets"][:2]
        self.subnets = [each["SubnetId"] for each in subnets]
        name = aws.name("web")
        balancer = self.elb.create_load_balancer(Name=name, Subnets=self.subnets)["LoadBalancers"][0]
        self.balancer, self.address = balancer["LoadBalancerArn"], balancer["DNSName"]
        self.group = self.elb.create_target_group(
            **{
                "Name": name,
                "Protocol": "HTTP",
                "Port": 8000,
                "VpcId": subnets[0]["VpcId"],
                "TargetType": "ip",
                "HealthCheckPath": "/health",
                "HealthCheckIntervalSeconds": 5,
                "HealthCheckTimeoutSeconds": 4,
                "HealthyThresholdCount": 2,
                "UnhealthyThresholdCount": 2,
                **group,
            }
        )["TargetGroups"][0]["TargetGroupArn"]
        self.listener = self.listen({"Type": "forward", "TargetGroupArn": self.group})
        self.cluster = aws.name("cluster")
        self.ecs.create_cluster(clusterName=self.cluster)
        self.name = aws.name("service")

    def listen(self, action: Any, protocol: str = "HTTP", port: int = 80, **options: Any) -> str:
        """A new listener."""
        made = self.elb.create_listener(
            LoadBalancerArn=self.balancer, Protocol=protocol, Port=port, DefaultActions=[action], **options
        )
        return str(made["Listeners"][0]["ListenerArn"])

    # --- the service ------------------------------------------------------------------------------------------------

    def define(self, version: str = "1", container: Any = None, **options: Any) -> str:
        """A new revision of the task definition, whose program has this version."""
        made = self.ecs.register_task_definition(
            **{
                "family": self.name,
                "requiresCompatibilities": ["FARGATE"],
                "networkMode": "awsvpc",
                "cpu": "256",
                "memory": "512",
                "containerDefinitions": [
                    {
                        "name": "app",
                        "image": "image",
                        "command": ["python", "-c", PROGRAM],
                        "portMappings": [{"containerPort": 8000}],
                        "environment": [{"name": "VERSION", "value": version}, {"name": "PORT", "value": "8000"}],
                        **(container or {}),
                    }
                ],
                **options,
            }
        )
        return str(made["taskDefinition"]["taskDefinitionArn"])

    def create(self, definition: str | None = None, count: int = 2, **options: Any) -> Any:
        """Make the service."""
        return self.ecs.create_service(
            **{
                "cluster": self.cluster,
                "serviceName": self.name,
                "taskDefinition": definition or self.define(),
                "desiredCount": count,
                "launchType": "FARGATE",
                "networkConfiguration": {"awsvpcConfiguration": {"subnets": self.subnets}},
                "loadBalancers": [{"targetGroupArn": self.group, "containerName": "app", "containerPort": 8000}],
                "deploymentConfiguration": {"deploymentCircuitBreaker": {"enable": True, "rollback": True}},
                **options,
            }
        )["service"]

    def update(self, **options: Any) -> Any:
        """Change the service."""
        return self.ecs.update_service(cluster=self.cluster, service=self.name, **options)["service"]

    def described(self) -> Any:
        """What DescribeServices says."""
        (found,) = self.ecs.describe_services(cluster=self.cluster, services=[self.name])["services"]
        return found

    def rollout(self) -> str:
        """State of the deployment that the last create or update began."""
        return str(self.aws.emulator.serving.deployment_state(self.cluster, self.name)["rolloutState"])

    def settle(self, state: str = "COMPLETED") -> Any:
        """Wait until that deployment is in a state; returns the service."""
        poll(lambda: self.rollout() == state, f"deployment {state}: {self.messages()}")
        return self.described()

    def messages(self) -> list[str]:
        """The events of the service, the latest first."""
        return [each["message"] for each in self.described()["events"]]

    def tasks(self, status: str = "RUNNING") -> list[Any]:
        """Tasks by their desired status."""
        arns = self.ecs.list_tasks(cluster=self.cluster, serviceName=self.name, desiredStatus=status)["taskArns"]
        return list(self.ecs.describe_tasks(cluster=self.cluster, tasks=arns)["tasks"]) if arns else []

    def delete(self) -> None:
        """Delete the service, and wait until it has no tasks."""
        self.ecs.delete_service(cluster=self.cluster, service=self.name, force=True)
        poll(lambda: self.described()["status"] == "INACTIVE", "service INACTIVE")

    def health(self) -> list[Any]:
        """Target health."""
        return list(self.elb.describe_target_health(TargetGroupArn=self.group)["TargetHealthDescriptions"])


@contextlib.contextmanager
def load(address: str, clients: int = 3) -> Iterator[list[tuple[int, str]]]:
    """Requests by several clients at once, on connections that are kept, while the block runs.

    Yields status and version of each answer as they come; status 0 stands for no answer.
    """
    answers: list[tuple[int, str]] = []
    end = threading.Event()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(address, timeout=60)
        while not end.is_set():
            method = "POST" if number % 2 else "GET"
            try:
                connection.request(method, "/", body=b"x" * 1000 if number % 2 else None)
                answer = connection.getresponse()
                answer.read()
                answers.append((answer.status, answer.getheader("X-Version", "")))
            except (OSError, http.client.HTTPException) as error:
                answers.append((0, repr(error)))
                connection.close()
            time.sleep(0.01)
        connection.close()

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        end.set()
        for thread in threads:
            thread.join()
