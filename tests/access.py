"""How tests come into an emulator: with its own key, as environment, credentials file, or on its own routes."""

from __future__ import annotations

import functools
import json
import urllib.request
from pathlib import Path
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from covalent_cirro.local.emulator import Emulator
from covalent_cirro.local.emulator.keys import Key
from covalent_cirro.local.local_stack import LocalStack

PROFILE = "emulated"


@functools.cache
def client(aws: Emulator | LocalStack, service: str) -> Any:
    """A boto3 client of an emulated AWS, made once: tests ask for it many times a second while they wait."""
    return aws.client(service)


def variables(key: Key) -> dict[str, str]:
    """The environment variables of a key."""
    return {"AWS_ACCESS_KEY_ID": key.id, "AWS_SECRET_ACCESS_KEY": key.secret}


def credentials_file(path: Path, key: Key, profile: str = PROFILE) -> str:
    """Write a credentials file with one profile; returns its path."""
    path.write_text(f"[{profile}]\naws_access_key_id = {key.id}\naws_secret_access_key = {key.secret}\n")
    return str(path)


def signed(key: Key, method: str, url: str, body: bytes = b"", *, service: str, **headers: str) -> dict[str, str]:
    """The headers of a request with botocore's signature of it; underscores in names become hyphens."""
    request = AWSRequest(method, url, {name.replace("_", "-"): value for name, value in headers.items()}, body)
    SigV4Auth(Credentials(*key), service, "us-east-1").add_auth(request)
    return dict(request.headers)


def ask(endpoint_url: str, key: Key, route: str, body: object = None, method: str | None = None) -> Any:
    """What a route under ``/_cirro/`` answers: to a GET, or to a PUT where there is a body.

    Raises:
        urllib.error.HTTPError: Another status than 200.
    """
    request = urllib.request.Request(
        f"{endpoint_url}/_cirro/{route}",
        data=None if body is None else json.dumps(body).encode(),
        method=method or ("GET" if body is None else "PUT"),
        headers={"Authorization": key.basic},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def control(emulator: Emulator, route: str, body: object = None, method: str | None = None) -> Any:
    """`ask` of an emulator in this process."""
    return ask(emulator.endpoint_url, emulator.key, route, body, method)
