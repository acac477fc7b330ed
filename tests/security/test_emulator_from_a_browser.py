"""The emulated AWS refuses what a web page makes a browser send, whatever route it is for and whoever signed it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from covalent_cirro.local.emulator import Emulator
from covalent_cirro.loopback import web_pages
from tests.access import signed

DEFINITION = json.dumps(
    {
        "jobDefinitionName": "from-a-page",
        "type": "container",
        "containerProperties": {
            "image": "image",
            "command": ["sh", "-c", "touch /tmp/a-page-was-here"],
            "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "64"}],
        },
    }
).encode()

ROUTES = {
    "AWS Batch": ("POST", "/v1/registerjobdefinition", DEFINITION),
    "an object": ("PUT", "/bucket/key", b"data"),
    "a query": ("POST", "/", b"Action=CreateUser&UserName=mallory&Version=2010-05-08"),
    "control": ("PUT", "/_cirro/images", b'{"image": ["sh"]}'),
    "status": ("GET", "/_cirro/status", b""),
    "moto's page": ("GET", "/moto-api/", b""),
    "moto's data": ("GET", "/moto-api/config", b""),
    "moto's reset": ("POST", "/moto-api/reset", b""),
    "the registry": ("GET", "/v2/", b""),
    "a layer": ("GET", "/_cirro/layers/us-east-1/sha256:00", b""),
    "credentials": ("GET", "/_cirro/credentials/0", b""),
    "nothing": ("GET", "/no/such/place", b""),
}

PAGES: dict[str, dict[str, str]] = {
    "a page": {"Origin": "http://evil.example"},
    "a page of another port": {"Origin": "http://127.0.0.1:1"},
    "a file": {"Origin": "null"},
    "an image": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    "a page beside us": {"Sec-Fetch-Site": "same-site"},
    "a name of its own": {"Host": "evil.example"},
    "a name of its own and our port": {"Host": "evil.example:8000"},
    "a name that begins like ours": {"Host": "127.0.0.1.evil.example"},
    "two names": {"Host": "127.0.0.1:80, evil.example"},
    "no name": {"Host": ""},
}


class Answer(NamedTuple):
    """An answer, with its headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One for all: nothing that is asked of it here is done."""
    with Emulator(state_dir=tmp_path_factory.mktemp("state") / "emulator") as emulator:
        yield emulator


def send(emulator: Emulator, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """A request with these headers and no others; without ``Host`` in them, that is the emulator's address."""
    connection = http.client.HTTPConnection("127.0.0.1", emulator.port, timeout=30)
    connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    if "Content-Length" not in headers:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    read = Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    connection.close()
    return read


def credentials(emulator: Emulator, method: str, path: str, body: bytes) -> dict[str, str]:
    """What a request needs that its user sends."""
    if path.startswith(("/_cirro/", "/moto-api")):
        return {"Authorization": emulator.key.basic}
    service = "batch" if path.startswith("/v1/") else "iam" if path == "/" else "s3"
    headers = signed(emulator.key, method, emulator.endpoint_url + path, body, service=service)
    return {name: value for name, value in headers.items() if name != "Host"}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("route", ROUTES)
def test_every_route_refuses_what_a_page_sends(emulator: Emulator, route: str, page: str) -> None:
    """Even with the key, which a page cannot have; and no header lets the page read the refusal."""
    method, path, body = ROUTES[route]
    headers = {**credentials(emulator, method, path, body), **PAGES[page], "Content-Type": "text/plain"}
    answer = send(emulator, method, path, body, headers)
    assert answer.status == 403
    assert json.loads(answer.body)["message"]
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("route", ROUTES)
def test_a_preflight_allows_nothing(emulator: Emulator, route: str) -> None:
    """Whatever is asked for: without these headers a browser sends no request that needs them."""
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": ROUTES[route][0]}
    for headers in (asked, {**asked, "Sec-Fetch-Site": "cross-site", "Access-Control-Request-Headers": "content-type"}):
        answer = send(emulator, "OPTIONS", ROUTES[route][1], b"", headers)
        assert answer.status == 403
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_no_answer_may_be_read_by_a_page(emulator: Emulator) -> None:
    """Those that its user gets have no such header either: moto puts ``Access-Control-Allow-Origin: *`` on its own."""
    for method, path, body in (*ROUTES.values(), ("GET", "/", b"")):
        answer = send(emulator, method, path, body, credentials(emulator, method, path, body))
        assert not [name for name in answer.headers if name.startswith("access-control-")], path


def test_a_page_cannot_run_a_command(emulator: Emulator, tmp_path: Path) -> None:
    """Two POSTs of ``text/plain`` need no permission of a browser's: neither registers nor submits anything."""
    before = emulator.client("batch").describe_job_definitions()["jobDefinitions"]
    for path, body in (("/v1/registerjobdefinition", DEFINITION), ("/v1/submitjob", b"{}")):
        for headers in ({"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}, {}):
            answer = send(emulator, "POST", path, body, {**headers, "Content-Type": "text/plain;charset=UTF-8"})
            assert answer.status == 403
    assert emulator.client("batch").describe_job_definitions()["jobDefinitions"] == before


@pytest.mark.parametrize(
    "host", ["127.0.0.1:{}", "localhost:{}", "LOCALHOST:{}", "[::1]:{}", "127.0.0.1", "localhost:1"]
)
def test_names_that_are_ours(emulator: Emulator, host: str) -> None:
    """The loopback's, with any port: SSH forwards another port to ours, and the page's own requests come from there."""
    named = host.format(emulator.port)
    for more in ({}, {"Origin": f"http://{named}"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}):
        headers = {"Host": named, "Authorization": emulator.key.basic, **more}
        assert send(emulator, "GET", "/_cirro/health", b"", headers).status == 200


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"host": "evil.example"}, "'evil.example'"),
        ({"host": None}, "of no name"),
        ({"host": "localhost:1", "origin": "http://evil.example"}, "'http://evil.example'"),
        ({"host": "localhost:1", "fetch_site": "cross-site"}, "address bar"),
    ],
)
def test_a_refusal_says_what_was_wrong(headers: dict[str, Any], said: str) -> None:
    """And what to do, where a person can do something; however long the header is."""
    asked: dict[str, Any] = {"host": None, "origin": None, "fetch_site": None, **headers}
    assert said in str(web_pages.refusal(**asked))
    assert len(str(web_pages.refusal("x" * 10_000, None, None))) < 400
