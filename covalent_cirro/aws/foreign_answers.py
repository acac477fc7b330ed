"""Recognises answers that are not AWS's: the HTML page of a proxy, a login or a load balancer.

botocore takes such a page for an empty answer of AWS's: a job would seem unknown, an object written. For some pages it
raises an error that it raises nowhere else. Knows botocore's events; nothing of operations and settings.
"""

from __future__ import annotations

import html
import re
from typing import Any

CODE = "NotAws"
"""The error code of such an answer, in the place of AWS's."""

ADVICE = (
    "Something between this machine and AWS answered, such as a proxy or a login page: log in there, or check "
    "HTTPS_PROXY, NO_PROXY and the endpoint."
)

WORDS = 150
"""Characters of a page that a message quotes."""

_PAGE = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)
_UNSEEN = re.compile(r"<(script|style|head)\b.*?</\1>|<!--.*?-->|<[^>]*>", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title>(.*?)</title>", re.IGNORECASE | re.DOTALL)

_PORTAL_STATUSES = frozenset({302, 303, 307, 407, 511})
"""Statuses that no AWS service sends with type HTML in answer to HEAD; redirects of S3 have type XML."""


class NotAws(Exception):
    """A page came with a status that is not an error."""


def refuse(session: Any) -> None:
    """Make all clients of a session refuse such answers."""
    session.register("before-parse", _look)


def _look(operation_model: Any, response_dict: Any, customized_response_dict: Any, **_: Any) -> None:
    """Replace a page by an error, which botocore retries by its status; raise where the status is no error."""
    words = _words(operation_model, response_dict)
    if words is None:
        return
    status = int(response_dict["status_code"])
    message = f"HTTP {status}, {words!r}" if words else f"HTTP {status}"
    if status < 400:  # S3's client would follow a redirect for ever
        raise NotAws(message)
    response_dict["body"] = b"<html/>"  # read by all parsers as an error without a code
    customized_response_dict["Error"] = {"Code": CODE, "Message": message}


def _words(operation_model: Any, response: Any) -> str | None:
    """The first words of a page; `None` for an answer that may be AWS's."""
    status, body = int(response["status_code"]), response["body"]
    kind = str(response["headers"].get("content-type", "")).partition(";")[0].strip().lower()
    if operation_model.name == "GetObject" and status < 300:
        return "" if kind == "text/html" else None  # a stream; none of our objects has this type
    if not isinstance(body, bytes):
        return None
    if operation_model.http.get("method") == "HEAD":
        is_object = operation_model.name == "HeadObject" and status < 300
        return "" if kind == "text/html" and (is_object or status in _PORTAL_STATUSES) else None
    if _PAGE.match(body):
        return _text(body.decode("utf-8", "replace"))
    is_json = operation_model.service_model.resolved_protocol in ("json", "rest-json")
    if is_json and status < 300 and body.strip() and body.lstrip()[:1] not in b"{[":
        return _text(body.decode("utf-8", "replace"))
    return None


def _text(page: str) -> str:
    titles = _TITLE.findall(page)
    seen = html.unescape(" ".join([*titles[:1], _UNSEEN.sub(" ", page)]))
    words = " ".join(seen.split())
    return words if len(words) <= WORDS else f"{words[:WORDS]}..."
