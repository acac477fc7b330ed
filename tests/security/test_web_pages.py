"""A page of another origin, in a real browser, reaches neither the emulator nor the Covalent server; the UI works."""

from __future__ import annotations

import functools
import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from covalent_cirro.local.local_stack import LocalStack
from tests.access import ask
from tests.security.test_other_users import open_to_others

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LOAD_MS = 60_000

pytestmark = pytest.mark.covalent

DISPATCH = """
import covalent as ct
add = ct.electron(lambda a, b: a + b, executor="local")
found = ct.get_result(ct.dispatch(ct.lattice(lambda: add(1, 2)))(), wait=True)
assert found.result == 3, found.error
print(found.dispatch_id)
"""

ATTACK = """
async ({emulator, server, touched}) => {
    const text = {"Content-Type": "text/plain"};
    const definition = JSON.stringify({
        jobDefinitionName: "from-a-page", type: "container",
        containerProperties: {
            image: "image", command: ["sh", "-c", "touch " + touched],
            resourceRequirements: [{type: "VCPU", value: "1"}, {type: "MEMORY", value: "64"}],
        },
    });
    const said = {};
    const tried = async (name, url, options) => {
        try {
            const answer = await fetch(url, options);
            said[name] = answer.type === "opaque" ? "opaque" : await answer.text();
        } catch (error) { said[name] = "refused"; }
    };
    await tried("emulator, no-cors", emulator + "/v1/registerjobdefinition",
                {method: "POST", mode: "no-cors", headers: text, body: definition});
    await tried("emulator, read", emulator + "/_cirro/status");
    await tried("emulator, moto's reset", emulator + "/moto-api/reset", {method: "POST", mode: "no-cors"});
    await tried("emulator, preflight", emulator + "/bucket/key", {method: "PUT", body: "x"});
    await tried("server, no-cors", server + "/api/v2/dispatches",
                {method: "POST", mode: "no-cors", headers: text, body: "{}"});
    await tried("server, read", server + "/api/v1/dispatches/list?count=1");
    await tried("server, credentials", server + "/api/v1/dispatches/list?count=1", {credentials: "include"});
    await tried("server, preflight", server + "/api/v2/dispatches/x/electrons/0/job",
                {method: "PUT", headers: {"Content-Type": "application/json"}, body: "{}"});
    await tried("server, polling", server + "/socket.io/?EIO=4&transport=polling");
    for (const [name, url, fields] of [
        ["emulator", emulator + "/", {Action: "CreateUser", UserName: "mallory", Version: "2010-05-08"}],
        ["server", server + "/api/v1/dispatches/delete", {dispatches: "x"}],
    ]) {
        const frame = document.createElement("iframe");
        frame.name = "form-" + name;
        document.body.append(frame);
        const form = document.createElement("form");
        Object.assign(form, {method: "POST", action: url, target: frame.name, enctype: "text/plain"});
        for (const [key, value] of Object.entries(fields)) {
            const input = document.createElement("input");
            Object.assign(input, {name: key, value});
            form.append(input);
        }
        document.body.append(form);
        const loaded = new Promise(resolve => { frame.onload = resolve; });
        form.submit();
        await loaded;
        try { said["form, " + name] = frame.contentDocument ? "readable" : "refused"; }
        catch (error) { said["form, " + name] = "refused"; }
        const image = new Image();
        const ended = new Promise(resolve => { image.onload = image.onerror = resolve; });
        image.src = url + "?image";
        await ended;
    }
    // The UI's terminal: a shell for whoever opens a websocket.
    said["server, terminal"] = await new Promise(resolve => {
        const socket = new WebSocket(server.replace("http", "ws") + "/socket.io/?EIO=4&transport=websocket");
        socket.onmessage = message => {
            if (message.data[0] === "0") socket.send("40");
            else if (message.data.startsWith("40")) {
                socket.send('42["start_terminal"]');
                socket.send('42["pty-input",' + JSON.stringify({input: "touch " + touched + "\\n"}) + "]");
            } else if (message.data.includes("pty-output") && message.data.includes("touch")) resolve("a shell");
        };
        socket.onclose = () => resolve("refused");
    });
    return said;
}
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """A local stack as ``cirro local up --server`` makes it."""
    playground = LocalStack(tmp_path_factory.mktemp("stack") / "state")
    try:
        playground.up(server=True, vcpus=1)
        yield playground
    finally:
        playground.down()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def foreign_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where a page of somebody else's is served."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "page.html").write_text("<!doctype html><title>page</title><body>")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium that finds ``evil.example`` on this machine, as DNS rebinding has it."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    flags = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP evil.example 127.0.0.1"]
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield made
        made.close()


def addresses(stack: LocalStack, name: str = "127.0.0.1") -> tuple[str, str]:
    """Where emulator and server are, by a name of this machine."""
    status = stack.status()
    ports = [urlsplit(str(url)).port for url in (status.endpoint_url, status.server_url)]
    return f"http://{name}:{ports[0]}", f"http://{name}:{ports[1]}"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "evil.example"])
def test_a_foreign_page_reaches_neither(
    stack: LocalStack, browser: Browser, foreign_port: int, tmp_path: Path, host: str
) -> None:
    """Not by a simple POST, a form, a read, a preflight or a websocket; nor from another port of this machine."""
    emulator, server = addresses(stack)
    touched = tmp_path / "touched"
    ask(emulator, stack.key, "calls", method="DELETE")
    page = browser.new_page()
    answers: list[tuple[int, str]] = []
    page.on("response", lambda answer: answers.append((answer.status, answer.url)))
    page.goto(f"http://{host}:{foreign_port}/page.html")
    said = page.evaluate(ATTACK, {"emulator": emulator, "server": server, "touched": str(touched)})
    page.close()
    assert {name: what for name, what in said.items() if what not in ("opaque", "refused")} == {}
    assert not touched.exists()
    assert ask(emulator, stack.key, "calls") == {}
    assert not stack.client("batch").describe_job_definitions(jobDefinitionName="from-a-page")["jobDefinitions"]
    assert not stack.client("iam").list_users()["Users"]
    for address in (emulator, server):
        statuses = [status for status, url in answers if url.startswith(address)]
        assert statuses
        assert set(statuses) == {403}, answers


def test_a_name_that_leads_here_opens_nothing(stack: LocalStack, browser: Browser) -> None:
    """DNS rebinding: the page's own name, which now means this machine, is a foreign ``Host``."""
    for address in addresses(stack, "evil.example"):
        page = browser.new_page()
        answer = page.goto(f"{address}/api/v1/dispatches/list?count=1")
        assert answer is not None
        assert answer.status == 403
        assert "evil.example" in answer.text()
        page.close()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_the_servers_own_pages_work(stack: LocalStack, browser: Browser, name: str, dispatch_id: str) -> None:
    """The list, a dispatch's graph and the terminal's websocket; nothing that the UI asks for is refused."""
    _, server = addresses(stack, name)
    page = browser.new_page()
    refused: list[str] = []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status == 403 else None)
    page.route(lambda url: not url.startswith((server, "data:", "blob:")), lambda route: route.abort())
    page.goto(f"{server}/", timeout=LOAD_MS)
    page.get_by_text(dispatch_id[:8]).first.wait_for(timeout=LOAD_MS)
    page.goto(f"{server}/{dispatch_id}", timeout=LOAD_MS)
    page.locator(".react-flow__node").first.wait_for(timeout=LOAD_MS)
    assert _terminal_opens(page, server)
    assert refused == []
    page.close()


@pytest.fixture(scope="module")
def dispatch_id(stack: LocalStack) -> str:
    """A dispatch that a program of the user's made: Covalent's client sends no header that a browser does."""
    done = subprocess.run(
        [sys.executable, "-c", DISPATCH],
        env=stack.environment(os.environ),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def _terminal_opens(page: Page, server: str) -> bool:
    script = """url => new Promise(resolve => {
        const socket = new WebSocket(url);
        socket.onmessage = () => { resolve(true); socket.close(); };
        socket.onclose = () => resolve(false);
    })"""
    return bool(page.evaluate(script, server.replace("http", "ws") + "/socket.io/?EIO=4&transport=websocket"))


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/static/js/nothing.js"),
        ("GET", "/api/v1/dispatches/list?count=1"),
        ("PUT", "/api/v2/dispatches/x/electrons/0/job"),
        ("OPTIONS", "/api/v2/dispatches/x/electrons/0/job"),
        ("GET", "/socket.io/?EIO=4&transport=polling"),
        ("GET", "/docs"),
    ],
)
def test_every_route_of_the_server_refuses(stack: LocalStack, method: str, path: str, headers: dict[str, str]) -> None:
    """With no header that would let the page read why."""
    status, answered, body = send(stack, method, path, {"Access-Control-Request-Method": "PUT", **headers})
    assert status == 403
    assert json.loads(body)["detail"]
    assert not [name for name in answered if name.startswith("access-control-")]


def test_no_answer_of_the_server_may_be_read_by_a_page(stack: LocalStack) -> None:
    """Its own page's requests are answered without such headers: Covalent and socket.io allow every origin."""
    _, server = addresses(stack)
    for path in ("/api/v1/dispatches/list?count=1", "/socket.io/?EIO=4&transport=polling"):
        status, answered, _ = send(stack, "GET", path, {"Origin": server})
        assert status == 200
        assert not [name for name in answered if name.startswith("access-control-")]


def test_the_server_believes_no_proxy(stack: LocalStack) -> None:
    """Who says that somebody else sent him is still himself: another user could name a connection of ours."""
    asked = {"X-Forwarded-For": "127.0.0.1:1"}  # nobody's: whoever is taken for that is refused
    assert send(stack, "GET", "/api/v1/dispatches/list?count=1", asked)[0] == 200


def test_what_the_server_wrote_is_its_users(stack: LocalStack, dispatch_id: str) -> None:
    """Config, database, results and logs of the local stack: 0600, in folders that are 0700.

    The user's own programs make files with their own umask, within those folders.
    """
    names = {path.name for path in stack.state_dir.rglob("*")}
    assert {"covalent.conf", "dispatcher_db.sqlite", "results.tobj", "covalent.log", dispatch_id} <= names
    by_client = tuple(str(stack.covalent_dir / "cache" / name) for name in ("dispatches", "results"))
    assert [entry for entry in open_to_others(stack.state_dir) if not entry.startswith(by_client)] == []


def send(stack: LocalStack, method: str, path: str, headers: dict[str, str]) -> tuple[int, list[str], bytes]:
    """Status, names of headers in lower case, and body of an answer of the Covalent server."""
    _, server = addresses(stack)
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=60)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer: Any = connection.getresponse()
    read = answer.status, [name.lower() for name, _ in answer.getheaders()], answer.read()
    connection.close()
    return read
