"""Answers that are not AWS's: the page of a proxy, of a login or of a load balancer, in HTML where AWS has JSON or XML.

botocore takes such a page for an empty answer of AWS's, or raises what it raises nowhere else: jobs would be unknown,
objects written that are nowhere. Knows botocore's events; nothing of operations and settings.
"""

from __future__ import annotations

import html
import re
from typing import Any

CODE = "NotAws"
"""In the place of AWS's error code."""

ADVICE = (
    "Something between this machine and AWS answered, such as a proxy or a login page: log in there, or check "
    "HTTPS_PROXY, NO_PROXY and the endpoint."
)

WORDS = 150
"""Characters of a page that are told."""

_PAGE = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)
_UNSEEN = re.compile(r"<(script|style|head)\b.*?</\1>|<!--.*?-->|<[^>]*>", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title>(.*?)</title>", re.IGNORECASE | re.DOTALL)

_PORTAL_STATUSES = frozenset({302, 303, 307, 407, 511})
"""With which no service of AWS answers HEAD and a type of HTML; S3's redirects have XML's."""


class NotAws(Exception):
    """A page came with a status that is no error's."""


def refuse(session: Any) -> None:
    """Have all clients that a session makes tell pages from answers."""
    session.register("before-parse", _look)


def _look(operation_model: Any, response_dict: Any, customized_response_dict: Any, **_: Any) -> None:
    """Replace a page by an error, which botocore tries again by its status, or raise where that is no error's."""
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
        return "" if kind == "text/html" else None  # a stream; no object of ours is a page
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
