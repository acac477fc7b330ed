"""Load balancers of the emulator: real requests on the loopback, to targets that are servers of the tests."""

from __future__ import annotations

import datetime
import hashlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.exceptions import ClientError

from covalent_cirro.local.emulator import Emulator
from covalent_cirro.local.emulator.moto_internals.moto_cloudwatch import percentile
from covalent_cirro.local.emulator.serving.target_groups import matches
from tests.emulator.conftest import Aws, poll
from tests.emulator.web_services import Web, ask


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        """Do what the path says."""
        target: TargetServer = self.server.target
        if self.path == "/health":
            target.checks += 1
            self._answer(target.health, b"")
            return
        target.paths.append(self.path)
        if self.path == "/break":
            self.close_connection = True
            return
        if self.path == "/hang":
            target.go_on.wait(60)
            self.close_connection = True
            return
        if self.path == "/parts":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (b"first", b"second"):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.flush()
                target.go_on.wait(60)
            self.wfile.write(b"0\r\n\r\n")
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        seen = {
            "target": target.name,
            "headers": dict(self.headers.items()),
            "path": self.path,
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        self._answer(200, b"" if self.command == "HEAD" else json.dumps(seen).encode())

    do_POST = do_PUT = do_HEAD = do_GET

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", "a=1")
        self.send_header("Set-Cookie", "b=2")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class TargetServer:
    """A target: a server of this process, healthy until ``health`` is set to another status."""

    def __init__(self, name: str) -> None:
        self.name, self.health = name, 200
        self.paths: list[str] = []
        self.checks = 0
        self.go_on = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.target = self  # type: ignore[attr-defined]
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def id(self) -> Any:
        """As RegisterTargets has it."""
        return {"Id": "127.0.0.1", "Port": self.port}

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def web(aws: Aws) -> Web:
    """A balancer with a target group."""
    return Web(aws)


@pytest.fixture
def targets(web: Web) -> Iterator[list[TargetServer]]:
    """Two healthy targets of it."""
    made = [TargetServer("a"), TargetServer("b")]
    web.elb.register_targets(TargetGroupArn=web.group, Targets=[each.id for each in made])
    poll(lambda: states(web) == ["healthy", "healthy"], "two healthy targets")
    yield made
    for each in made:
        each.close()


def states(web: Web) -> list[str]:
    """States of the targets."""
    return [each["TargetHealth"]["State"] for each in web.health()]


def seen(web: Web, path: str = "/", **options: Any) -> Any:
    """What a target saw of a request."""
    return json.loads(ask(web.address, path, **options).body)


def test_targets_get_requests_in_turn(web: Web, targets: list[TargetServer]) -> None:
    """Each half of them."""
    assert sorted(seen(web)["target"] for _ in range(10)) == ["a"] * 5 + ["b"] * 5


def test_the_least_busy_target_gets_the_request(web: Web, targets: list[TargetServer]) -> None:
    """Where the target group says so."""
    algorithm = {"Key": "load_balancing.algorithm.type", "Value": "least_outstanding_requests"}
    web.elb.modify_target_group_attributes(TargetGroupArn=web.group, Attributes=[algorithm])
    slow = threading.Thread(target=ask, args=(web.address, "/parts"), daemon=True)
    slow.start()
    (busy,) = poll(lambda: [each for each in targets if each.paths], "a busy target")
    assert {seen(web)["target"] for _ in range(6)} == {"a", "b"} - {busy.name}
    busy.go_on.set()
    slow.join()


def test_a_request_reaches_the_target_as_it_was(web: Web, targets: list[TargetServer]) -> None:
    """Path, body and headers; with what balancers add, and without what belongs to the connection."""
    body = b"x" * 3_000_000
    headers = {"Host": "example.org", "X-Forwarded-For": "203.0.113.7", "Keep-Alive": "timeout=5", "X-Mine": "1"}
    got = seen(web, "/a%2Fb?c=%20d&e", method="POST", body=body, headers=headers)
    assert got["path"] == "/a%2Fb?c=%20d&e"
    assert got["sha256"] == hashlib.sha256(body).hexdigest()
    assert got["headers"]["Host"] == "example.org"
    assert got["headers"]["X-Mine"] == "1"
    assert got["headers"]["X-Forwarded-For"] == "203.0.113.7, 127.0.0.1"
    assert got["headers"]["X-Forwarded-Proto"] == "http"
    assert got["headers"]["X-Forwarded-Port"] == web.address.rpartition(":")[2]
    assert got["headers"]["X-Amzn-Trace-Id"].startswith("Root=1-")
    assert "Keep-Alive" not in got["headers"]
    assert "User-Agent" not in got["headers"]


def test_a_client_that_asks_before_it_sends_a_body_is_told_to_go_on(web: Web, targets: list[TargetServer]) -> None:
    """As curl does before a large one (RFC 9110, 10.1.1)."""
    host, _, port = web.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"body")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_an_answer_reaches_the_client_as_it_was(web: Web, targets: list[TargetServer]) -> None:
    """All headers of one name; and no body where there is none."""
    connection = http.client.HTTPConnection(web.address, timeout=60)
    for method in ("HEAD", "GET", "HEAD"):
        connection.request(method, "/")
        answer = connection.getresponse()
        assert answer.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
        assert bool(answer.read()) == (method == "GET")
    connection.close()


def test_an_answer_is_streamed(web: Web, targets: list[TargetServer]) -> None:
    """The client has its first part before the target writes the second."""
    connection = http.client.HTTPConnection(web.address, timeout=60)
    connection.request("GET", "/parts")
    answer = connection.getresponse()
    assert answer.read1(100) == b"first"
    for each in targets:
        each.go_on.set()
    assert answer.read() == b"second"
    connection.close()


def test_errors_of_targets(web: Web, targets: list[TargetServer]) -> None:
    """502 for one that breaks the connection, 504 for one that does not answer, 503 without a healthy one."""
    assert ask(web.address, "/break", method="POST").status == 502
    idle = {"Key": "idle_timeout.timeout_seconds", "Value": "1"}
    web.elb.modify_load_balancer_attributes(LoadBalancerArn=web.balancer, Attributes=[idle])
    assert ask(web.address, "/hang").status == 504
    web.elb.deregister_targets(TargetGroupArn=web.group, Targets=[each.id for each in targets])
    answer = ask(web.address)
    assert (answer.status, answer.headers["Server"]) == (503, "awselb/2.0")
    assert b"503 Service Temporarily Unavailable" in answer.body


def test_an_unhealthy_target_gets_no_requests(web: Web, targets: list[TargetServer]) -> None:
    """Until it is healthy again; where all are unhealthy, all get requests."""
    first, second = targets
    first.health = 500
    poll(lambda: sorted(states(web)) == ["healthy", "unhealthy"], "one is unhealthy")
    (why,) = [each["TargetHealth"] for each in web.health() if each["TargetHealth"]["State"] == "unhealthy"]
    assert (why["Reason"], why["Description"]) == (
        "Target.ResponseCodeMismatch",
        "Health checks failed with these codes: [500]",
    )
    assert {seen(web)["target"] for _ in range(6)} == {"b"}
    second.health = 404
    poll(lambda: states(web) == ["unhealthy"] * 2, "both are unhealthy")
    assert {seen(web)["target"] for _ in range(6)} == {"a", "b"}
    first.health = 200
    poll(lambda: sorted(states(web)) == ["healthy", "unhealthy"], "one is healthy again")
    assert {seen(web)["target"] for _ in range(6)} == {"a"}


def test_a_new_target_has_time_to_start(web: Web) -> None:
    """Failed checks do not count for a while, and one success is enough."""
    target = TargetServer("a")
    target.health = 503
    web.elb.register_targets(TargetGroupArn=web.group, Targets=[target.id])
    poll(lambda: target.checks >= 5, "five checks")
    assert states(web) == ["initial"]
    assert ask(web.address).status == 503
    target.health = 200
    poll(lambda: states(web) == ["healthy"], "healthy")
    target.close()


def test_targets_of_a_group_without_a_balancer_are_unused(web: Web, aws: Aws) -> None:
    """They are not checked; and one that is not registered is named as such."""
    web.elb.delete_listener(ListenerArn=web.listener)
    target = TargetServer("a")
    web.elb.register_targets(TargetGroupArn=web.group, Targets=[target.id])
    poll(lambda: states(web) == ["unused"], "unused")
    (other,) = web.elb.describe_target_health(TargetGroupArn=web.group, Targets=[{"Id": "127.0.0.1", "Port": 1}])[
        "TargetHealthDescriptions"
    ]
    assert other["TargetHealth"]["Reason"] == "Target.NotRegistered"
    target.close()


def test_https_ends_at_the_balancer(web: Web, targets: list[TargetServer], aws: Aws) -> None:
    """On the same port, with the certificate of ACM; and HTTP leads there."""
    certificate = aws.client("acm").request_certificate(DomainName="localhost")["CertificateArn"]
    forward = {"Type": "forward", "TargetGroupArn": web.group}
    web.listen(forward, "HTTPS", 443, Certificates=[{"CertificateArn": certificate}])
    redirect = {"Type": "redirect", "RedirectConfig": {"Protocol": "HTTPS", "Port": "443", "StatusCode": "HTTP_301"}}
    web.elb.modify_listener(ListenerArn=web.listener, DefaultActions=[redirect])
    answer = ask(web.address, "/here?a=1")
    assert answer.status == 301
    assert answer.headers["Location"] == f"https://{web.address}/here?a=1"
    context = ssl._create_unverified_context()
    connection = http.client.HTTPSConnection(web.address, timeout=60, context=context)
    connection.request("GET", "/here?a=1")
    got = json.loads(connection.getresponse().read())
    assert (got["path"], got["headers"]["X-Forwarded-Proto"]) == ("/here?a=1", "https")
    connection.close()


def test_a_listener_can_answer_by_itself(web: Web) -> None:
    """With a fixed response."""
    config = {"StatusCode": "418", "ContentType": "application/json", "MessageBody": '{"tea": true}'}
    web.elb.modify_listener(
        ListenerArn=web.listener, DefaultActions=[{"Type": "fixed-response", "FixedResponseConfig": config}]
    )
    answer = ask(web.address)
    assert (answer.status, answer.headers["Content-Type"]) == (418, "application/json")
    assert json.loads(answer.body) == {"tea": True}


def test_requests_are_counted_in_cloudwatch(web: Web, targets: list[TargetServer], aws: Aws) -> None:
    """By balancer, and by balancer and target group; latencies have percentiles."""
    for _ in range(20):
        ask(web.address)
    ask(web.address, "/break", method="POST")
    cloudwatch, full = aws.client("cloudwatch"), web.balancer.partition(":loadbalancer/")[2]
    of_balancer = [{"Name": "LoadBalancer", "Value": full}]
    of_group = [{"Name": "TargetGroup", "Value": web.group.rpartition(":")[2]}]

    def values(name: str, stat: str, dimensions: Any) -> float:
        now = datetime.datetime.now(datetime.timezone.utc)
        metric = {"Namespace": "AWS/ApplicationELB", "MetricName": name, "Dimensions": dimensions}
        answer = cloudwatch.get_metric_data(
            MetricDataQueries=[{"Id": "a", "MetricStat": {"Metric": metric, "Period": 3600, "Stat": stat}}],
            StartTime=now - datetime.timedelta(minutes=10),
            EndTime=now + datetime.timedelta(minutes=10),
        )
        return float(sum(answer["MetricDataResults"][0]["Values"]))

    poll(lambda: values("RequestCount", "Sum", of_balancer) == 21, "all requests")
    assert values("RequestCount", "Sum", [*of_group, *of_balancer]) == 21
    assert values("RequestCount", "Sum", [*of_balancer, *of_group]) == 21
    assert values("HTTPCode_Target_2XX_Count", "Sum", of_balancer) == 20
    assert values("HTTPCode_ELB_5XX_Count", "Sum", of_balancer) == 1
    assert values("RequestCountPerTarget", "Sum", of_group) == 10.5
    poll(lambda: values("HealthyHostCount", "Maximum", [*of_group, *of_balancer]) == 2, "two healthy hosts")
    median, late = (values("TargetResponseTime", stat, of_balancer) for stat in ("p50", "p99"))
    assert 0 < median <= late


def test_what_the_emulator_lacks_is_refused(web: Web) -> None:
    """Listener rules: a request would take another way than the user thinks."""
    condition = {"Field": "path-pattern", "Values": ["/x"]}
    with pytest.raises(ClientError, match="the emulator has no listener rules"):
        web.elb.create_rule(
            ListenerArn=web.listener,
            Conditions=[condition],
            Priority=1,
            Actions=[{"Type": "forward", "TargetGroupArn": web.group}],
        )


def test_a_deleted_balancer_answers_no_more(web: Web) -> None:
    """Its port is closed, its name is unknown."""
    assert ask(web.address).status == 503
    web.elb.delete_load_balancer(LoadBalancerArn=web.balancer)
    with pytest.raises(ConnectionRefusedError):
        ask(web.address.replace("localhost", "127.0.0.1"))
    web.elb.delete_target_group(TargetGroupArn=web.group)


def test_two_emulators_have_balancers_of_their_own(web: Web) -> None:
    """Ports and targets: what one does is nothing to the other."""
    with Emulator() as other:
        second = Web(Aws(other))
        assert second.address != web.address
        assert second.group != web.group
        target = TargetServer("other")
        second.elb.register_targets(TargetGroupArn=second.group, Targets=[target.id])
        poll(lambda: states(second) == ["healthy"], "healthy")
        assert seen(second)["target"] == "other"
        assert ask(web.address).status == 503
        target.close()


@pytest.mark.parametrize(
    ("codes", "status", "expected"),
    [
        ("200", 200, True),
        ("200", 204, False),
        ("200-299", 250, True),
        ("200,301", 301, True),
        ("200,301-302", 303, False),
    ],
)
def test_codes_of_a_matcher(codes: str, status: int, expected: bool) -> None:
    """Single ones, lists and ranges."""
    assert matches(codes, status) is expected


def test_percentiles_count_how_often_a_value_occurred() -> None:
    """And there is none of nothing."""
    values = {0.1: 98, 0.5: 1, 2.0: 1}
    assert [percentile(values, each) for each in (0, 50, 98, 99, 100)] == [0.1, 0.1, 0.1, 0.5, 2.0]
    assert percentile({}, 50) is None
