"""What happens to a served recommender: a new model, a broken one, the one before; each under load.

It must not know whether the AWS is the emulator (`tests/cli/test_serve_updates.py`) or a real account
(`tests/aws/test_serving.py`).
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import aiohttp
import numpy as np
import safetensors.numpy

from covalent_cirro.models.model_registry import ModelRegistry
from covalent_cirro.models.model_version import ModelVersion

NAME = "recommender"
USERS, ITEMS, K = 30, 20, 3
AT_ONCE = 8
"""Requests at a time: enough that some are always on their way."""
PAUSE_S = 0.005
"""Between two requests of a user: emulator and tasks need some of the processor."""


class Done(NamedTuple):
    """How a command ended: its exit code, what it printed on stdout, and on both."""

    exit_code: int
    stdout: str
    output: str


Cirro = Callable[..., Done]
"""Calls ``cirro``."""


def register(registry: ModelRegistry, seed: int, *, broken: bool = False) -> ModelVersion:
    """Register a recommender whose weights are drawn; one that is broken has a catalogue that says nothing."""
    draw = np.random.default_rng(seed)
    weights = {
        "user": draw.normal(size=(USERS, K)).astype(np.float32),
        "item": draw.normal(size=(ITEMS, K)).astype(np.float32),
        "bias_user": np.zeros(USERS, np.float32),
        "bias_item": np.zeros(ITEMS, np.float32),
        "bias": np.zeros(1, np.float32),
    }
    catalogue = {
        "users": list(range(1, USERS + 1)),
        "items": list(range(1, ITEMS + 1)),
        "titles": [f"Film {number}" for number in range(1, ITEMS + 1)],
        "popular": list(range(ITEMS)),
    }
    rated = {"indptr": np.arange(USERS + 1, dtype=np.int64), "indices": np.zeros(USERS, np.int32)}
    return registry.register(
        NAME,
        safetensors.numpy.save(weights),
        {
            "catalogue.json": b"{}" if broken else json.dumps(catalogue).encode(),
            "rated.safetensors": safetensors.numpy.save(rated),
        },
        dispatch=None,
        node=None,
        data_digest=None,
        metrics={},
        parameters={"seed": seed},
        versions={},
    )


class Load:
    """Requests, some at a time, from the beginning of a block to its end.

    Attributes:
        answers: How many answers had which status and which version of the model.
        failures: What went wrong with requests that have no answer.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.answers: Counter[tuple[int, str]] = Counter()
        self.failures: list[str] = []

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    async def _run(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
            await asyncio.gather(*(self._ask(session, user) for user in range(1, AT_ONCE + 1)))

    async def _ask(self, session: aiohttp.ClientSession, user: int) -> None:
        while not self._stop.is_set():
            try:
                async with session.get(f"{self._url}/", params={"uid": user, "n": 5}) as answer:
                    await answer.read()
                    self.answers[answer.status, answer.headers.get("x-model-version", "")] += 1
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                self.failures.append(repr(error))
            await asyncio.sleep(PAUSE_S)


def version_at(url: str) -> str:
    """The version of the model that answers now."""
    with urllib.request.urlopen(f"{url}/ready", timeout=60) as answer:
        return str(json.load(answer)["version"])


def deploy(cirro: Cirro, registry: ModelRegistry, allow_from: str) -> dict[str, Any]:
    """Serve a first model, on two tasks; what ``cirro serve deploy`` says of it."""
    version = register(registry, 1).version
    options = ("--allow-from", allow_from, "--parameter", "MinTasks=2", "--yes", "--json")
    done = cirro("serve", "deploy", "--model", NAME, *options)
    assert done.exit_code == 0, done.output
    served = dict(json.loads(done.stdout))
    assert version_at(served["url"]) == version
    return served


def take_over(cirro: Cirro, registry: ModelRegistry, url: str) -> None:
    """A new model: both versions answer for a while, then only the new one."""
    old, new = version_at(url), register(registry, 2).version
    with Load(url) as load:
        done = cirro("serve", "update", NAME, "--yes", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["model"] == f"{NAME}/{new}"
    assert load.failures == []
    assert {status for status, _ in load.answers} == {200}, load.answers
    assert {version for _, version in load.answers} == {old, new}
    assert version_at(url) == new
    told = cirro("serve", "status", NAME).output
    assert re.search(rf"model +{NAME}/{new}", told), told
    assert re.search(rf"before .* {NAME}/{old}", told), told


def go_back(cirro: Cirro, registry: ModelRegistry, url: str) -> None:
    """A model that cannot be loaded: what was served before answers all the time, and the command says why."""
    before = version_at(url)
    register(registry, 3, broken=True)
    with Load(url) as load:
        done = cirro("serve", "update", NAME, "--yes")
    assert done.exit_code == 1
    assert "was taken back by itself, and what it served before goes on" in done.output
    assert "ECS Deployment Circuit Breaker was triggered" in done.output
    assert "'users' is missing" in done.output  # what the tasks printed
    assert load.failures == []
    assert set(load.answers) == {(200, before)}, load.answers
    assert version_at(url) == before
    [found] = json.loads(cirro("serve", "status", NAME, "--json").stdout)
    assert (found["model"], found["stack"]["status"]) == (f"{NAME}/{before}", "UPDATE_ROLLBACK_COMPLETE")


def roll_back(cirro: Cirro, registry: ModelRegistry, url: str) -> None:
    """The model before the last change is served again, by an update like any other."""
    before, newer = version_at(url), register(registry, 4).version
    done = cirro("serve", "update", NAME, "--yes")
    assert done.exit_code == 0, done.output
    assert version_at(url) == newer
    with Load(url) as load:
        done = cirro("serve", "rollback", NAME, "--yes", "--json")
    assert done.exit_code == 0, done.output
    assert load.failures == []
    assert set(load.answers) <= {(200, newer), (200, before)}, load.answers
    assert version_at(url) == before


def destroy(cirro: Cirro) -> None:
    """Nothing of the service is left."""
    done = cirro("serve", "destroy", NAME, "--yes", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["left"] == []
    assert cirro("serve", "status", "--json").exit_code == 3
