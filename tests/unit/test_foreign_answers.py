"""A proxy's or a login's page in the place of AWS's answer: nothing of ours takes it for one, and it is tried again."""

from __future__ import annotations

import http.server
import io
import threading
from collections.abc import AsyncIterator

import pytest

from covalent_cirro.aws import sessions
from covalent_cirro.aws.foreign_answers import CODE
from covalent_cirro.aws.sessions import Access
from covalent_cirro.electron.engine.engine import Engine, close_engines, engine_of
from covalent_cirro.errors import AwsError

LOGIN = (
    b"<!-- portal --><!DOCTYPE html><html><head><title>Welcome</title><style>x</style></head><p>Sign&nbsp;in<br></html>"
)


class Portal:
    """A place where AWS should be: it answers with pages, and then as AWS does.

    Attributes:
        pages: So many pages are left to give.
        status: With which.
    """

    def __init__(self) -> None:
        self.pages, self.status, self.body = 0, 200, LOGIN
        portal = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # with it, a client waits for "100 Continue" before a body

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                is_page = portal.pages > 0
                portal.pages -= 1
                body = portal.body if is_page else b'{"jobs": []}' if self.command != "PUT" else b""
                self.send_response(portal.status if is_page else 200)
                self.send_header("Content-Type", "text/html" if is_page else "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Last-Modified", "Sat, 28 Nov 2026 12:00:00 GMT")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_HEAD = answer

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
async def portal(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Portal]:
    """The portal; whoever asks it has a key."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    made = Portal()
    yield made
    await close_engines()
    made.server.shutdown()


async def engine(portal: Portal) -> Engine:
    return await engine_of(Access(None, None, "us-east-1", f"http://127.0.0.1:{portal.server.server_port}"))


@pytest.mark.parametrize(
    ("call", "status"),
    [("describe", 200), ("describe", 403), ("get", 200), ("get", 302), ("put", 200), ("put", 502), ("read", 200)],
)
async def test_a_page_is_tried_again_until_aws_answers(portal: Portal, call: str, status: int) -> None:
    """A job is not unknown for it, an object not written, and a page no result; whatever its status is."""
    here = await engine(portal)
    portal.pages, portal.status = 2, status
    if call == "describe":
        assert await sessions.patiently(lambda: here.batch.describe(["job"]), 60.0) == []
    elif call == "get":
        assert await here.store.get_document("bucket", "key", 1000) == b'{"jobs": []}'
    elif call == "put":
        await here.store.put_document("bucket", "key", b"{}")
    else:
        file = io.BytesIO()
        await here.store.append_object("bucket", "key", file)
        assert file.getvalue() == b'{"jobs": []}'
    assert portal.pages < 0


@pytest.mark.parametrize(
    "body", [LOGIN, b"\n<HTML>Sign in</HTML>", b"<?xml version='1.0'?><html>Sign in</html>", b"Sign in"]
)
async def test_its_first_words_are_told(portal: Portal, body: bytes) -> None:
    """With what to look at: it stands between this machine and AWS."""
    here = await engine(portal)
    portal.pages, portal.body = 1000, body
    with pytest.raises(AwsError) as caught:
        await here.batch.describe(["job"])
    assert caught.value.code == CODE
    assert caught.value.retryable
    assert "Sign in" in str(caught.value)
    assert "HTTPS_PROXY" in str(caught.value)
