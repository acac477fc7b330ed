"""The emulator's check of a signature agrees with botocore, which makes them, and sees every change of a request."""

from __future__ import annotations

import io
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.local.emulator.iam import signatures

KEY, SECRET, TOKEN = "AKIDEXAMPLE", "wJalr/XUtnFEMI+K7MDENG", "the/token=="
HOST = "127.0.0.1:5000"

SIGNERS = {
    "a call": lambda who: SigV4Auth(who, "batch", "eu-west-1"),
    "an object": lambda who: S3SigV4Auth(who, "s3", "eu-west-1"),
    "a URL": lambda who: SigV4QueryAuth(who, "sts", "eu-west-1", expires=60),
    "an object's URL": lambda who: S3SigV4QueryAuth(who, "s3", "eu-west-1", expires=60),
}

parts = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=8)
safe = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8)


def environ(method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """What the emulator's server makes of a request."""
    split = urlsplit(url)
    target = split.path + (f"?{split.query}" if split.query else "")
    made: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "RAW_URI": target,
        "QUERY_STRING": split.query,
        "HTTP_HOST": HOST,
        "wsgi.input": io.BytesIO(body),
    }
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        made[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    return made


def holds(request: dict[str, Any], body: bytes, secret: str = SECRET, later_s: float = 0) -> bool:
    """Whether the emulator takes it, now or some seconds later."""
    signature = signatures.of(request)
    return signature is not None and signatures.holds(
        signature, request, secret, lambda: body, now=time.time() + later_s
    )


def sign(kind: str, method: str, url: str, body: bytes, headers: dict[str, str], token: str | None) -> dict[str, Any]:
    """A request that botocore signed."""
    from botocore.awsrequest import AWSPreparedRequest

    request = AWSRequest(method, url, dict(headers), body)
    SIGNERS[kind](Credentials(KEY, SECRET, token)).add_auth(request)
    prepared: AWSPreparedRequest = request.prepare()
    return environ(method, prepared.url, dict(prepared.headers.items()), body)


@pytest.mark.parametrize("kind", SIGNERS)
@given(
    path=st.lists(parts, max_size=3),
    query=st.dictionaries(parts, parts, max_size=3),
    headers=st.dictionaries(st.sampled_from(["X-Amz-Meta-A", "X-Amz-Target", "Content-Type"]), safe, max_size=2),
    body=st.binary(max_size=20),
    token=st.sampled_from([None, TOKEN]),
)
def test_what_botocore_signs_holds(
    kind: str,
    path: list[str],
    query: dict[str, str],
    headers: dict[str, str],
    body: bytes,
    token: str | None,
) -> None:
    """In headers and in a URL, with any path, query, headers and body; with another secret it does not."""
    from urllib.parse import quote, urlencode

    encoded = "/".join(quote(part, safe="-_.~") for part in path if part not in (".", ".."))
    url = f"http://{HOST}/{encoded}" + (f"?{urlencode(query, quote_via=quote, safe='-_.~')}" if query else "")
    if "URL" in kind:
        body = b""
    made = sign(kind, "POST", url, body, headers, token)
    assert holds(made, body)
    assert not holds(made, body, secret="another")


CHANGES: dict[str, dict[str, Any]] = {
    "method": {"REQUEST_METHOD": "DELETE"},
    "path": {"RAW_URI": "/v1/other"},
    "query": {"QUERY_STRING": "a=2"},
    "host": {"HTTP_HOST": "127.0.0.1:5001"},
    "header": {"HTTP_X_AMZ_TARGET": "Other"},
    "time": {"HTTP_X_AMZ_DATE": "20300101T000000Z"},
    "token": {"HTTP_X_AMZ_SECURITY_TOKEN": "another"},
}


@pytest.mark.parametrize("change", [*CHANGES, "body"])
def test_every_part_is_signed(change: str) -> None:
    """A request that was changed on its way is not its signer's."""
    url, body = f"http://{HOST}/v1/submitjob?a=1", b"{}"
    made = sign("a call", "POST", url, body, {"X-Amz-Target": "Submit"}, TOKEN)
    assert holds(made, body)
    assert not holds({**made, **CHANGES.get(change, {})}, b"{ }" if change == "body" else body)


def test_a_url_holds_for_its_time_only() -> None:
    """Then it is nobody's."""
    made = sign("an object's URL", "GET", f"http://{HOST}/bucket/key", b"", {}, None)
    for later_s, good in ((0, True), (30, True), (120, False)):
        assert holds(made, b"", later_s=later_s) is good


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE",
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/eu-west-1/batch/aws4_request, Signature=00",
        "AWS AKIDEXAMPLE:c2lnbmF0dXJl",
        "Bearer token",
    ],
)
def test_half_a_signature_is_none(authorization: str) -> None:
    """Nor is one of an older kind."""
    made = environ("GET", f"http://{HOST}/", {"Authorization": authorization, "X-Amz-Date": "20260101T000000Z"}, b"")
    assert signatures.of(made) is None


def test_two_signatures_are_none() -> None:
    """One part of the emulator could check the one, and another part believe the other; AWS takes none either."""
    header = sign("a call", "GET", f"http://{HOST}/bucket/key", b"", {}, None)
    url = sign("an object's URL", "GET", f"http://{HOST}/bucket/key", b"", {}, None)
    assert holds(header, b"")
    assert holds(url, b"")
    assert signatures.of({**header, "QUERY_STRING": url["QUERY_STRING"], "RAW_URI": url["RAW_URI"]}) is None
    forged = "X Credential=AKIDOTHER/20260101/us-east-1/iam/aws4_request"
    assert signatures.of({**url, "HTTP_AUTHORIZATION": forged}) is None


@pytest.mark.parametrize(
    "credential",
    ["AKIDEXAMPLE", "AKIDEXAMPLE/batch", "AKIDEXAMPLE/a/b/c/d/e/f", "AKIDEXAMPLE/20250101/r/s/aws4_request"],
)
@pytest.mark.parametrize("names", ["host", "x-amz-date", ""])
def test_a_malformed_signature_does_not_hold(credential: str, names: str) -> None:
    """Without the host among what is signed, or of another day than it says, it could be another request's."""
    authorization = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature=\u00e9"
    made = environ("GET", f"http://{HOST}/", {"Authorization": authorization, "X-Amz-Date": "20260101T000000Z"}, b"")
    assert not holds(made, b"")
