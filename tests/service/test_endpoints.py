"""What the endpoints answer, asked over HTTP."""

from __future__ import annotations

import http.client
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.serving_model import MadeModel
from tests.service.conftest import Process, ask
from tests.service.test_model import loop, similar_by_loop

USER = 3
"""Row of a user; its id is one more."""


def ids(model: MadeModel, rows: list[tuple[int, float]]) -> list[list[Any]]:
    """What a loop gives, with ids and titles in place of rows."""
    return [[model.items[row], model.titles[row], score] for row, score in rows]


def items(model: MadeModel, rows: list[tuple[int, float]], name: str = "score") -> list[dict[str, Any]]:
    """The same in the form of the endpoints below `/users` and `/items`."""
    return [{"item": item, "title": title, name: score} for item, title, score in ids(model, rows)]


def test_the_root_answers_triples(service: Process, model: MadeModel) -> None:
    """Ten of them where nothing else is asked, and nothing that the user has rated."""
    asked = ask(f"{service.url}/?uid={model.users[USER]}")
    assert asked.status == 200
    assert asked.headers["content-type"] == "application/json"
    assert asked.json == {"success": True, "response": ids(model, loop(model, USER, 10))}
    assert not {item for item, _, _ in asked.json["response"]} & {model.items[row] for row in model.rated[USER]}


def test_all_items_that_there_are(service: Process, model: MadeModel) -> None:
    """Where more are asked for."""
    asked = ask(f"{service.url}/?uid={model.users[USER]}&n=100000000000000000000")
    assert asked.json["response"] == ids(model, loop(model, USER, 1000))
    assert len(asked.json["response"]) == len(model.items) - len(model.rated[USER])


def test_a_user_s_recommendations(service: Process, model: MadeModel) -> None:
    """The same items, each with names for its parts."""
    asked = ask(f"{service.url}/users/{model.users[USER]}/recommendations?n=5")
    assert asked.json == {"user": 4, "source": "model", "items": items(model, loop(model, USER, 5))}


@pytest.mark.parametrize("path", ["/?uid=stranger", "/users/stranger/recommendations"])
def test_an_unknown_user(service: Process, path: str) -> None:
    """404, who is unknown to which model, and what can be asked instead."""
    asked = ask(service.url + path)
    assert asked.status == 404
    assert asked.json == {
        "success": False,
        "detail": "user stranger is none of the 30 users that the model movies 20260101T000000Z-0a1b2c3d was trained "
        "on; popular=true answers with popular items",
    }


def test_popular_items_for_an_unknown_user(service: Process, model: MadeModel) -> None:
    """On request; they have no score, since the model does not know the user."""
    titles = [(model.items[row], model.titles[row]) for row in model.popular[:3]]
    triples = ask(f"{service.url}/?uid=stranger&n=3&popular=true")
    named = ask(f"{service.url}/users/stranger/recommendations?n=3&popular=true")
    assert triples.json == {"success": True, "response": [[item, title, None] for item, title in titles]}
    assert named.json == {
        "user": "stranger",
        "source": "popular",
        "items": [{"item": item, "title": title, "score": None} for item, title in titles],
    }


def test_a_known_user_never_gets_popular_items(service: Process, model: MadeModel) -> None:
    """The request for them counts for unknown users only."""
    path = f"{service.url}/?uid={model.users[USER]}"
    assert ask(f"{path}&popular=true").body == ask(path).body


def test_many_users(service: Process, model: MadeModel) -> None:
    """In the order of the request, also twice the same; ids may be text; unknown ones are told."""
    asked = ask(f"{service.url}/recommendations", {"users": [1, "30", "stranger", 1], "n": 2})
    first = {"user": 1, "source": "model", "items": items(model, loop(model, 0, 2))}
    last = {"user": 30, "source": "model", "items": items(model, loop(model, 29, 2))}
    assert asked.json == {"answers": [first, last, {"user": "stranger", "source": "unknown", "items": []}, first]}


def test_many_users_with_popular_items(service: Process) -> None:
    """For the unknown ones."""
    asked = ask(f"{service.url}/recommendations", {"users": [99, 98], "n": 1, "popular": True})
    assert [(each["user"], each["source"], len(each["items"])) for each in asked.json["answers"]] == [
        (99, "popular", 1),
        (98, "popular", 1),
    ]


def test_similar_items(service: Process, model: MadeModel) -> None:
    """By the cosine of the vectors, without the item itself."""
    asked = ask(f"{service.url}/items/7/similar?n=4")
    similar = items(model, similar_by_loop(model, 6, 4), "similarity")
    assert asked.json == {"item": 7, "title": model.titles[6], "similar": similar}


def test_an_unknown_item(service: Process) -> None:
    """404, and which."""
    asked = ask(f"{service.url}/items/nothing/similar")
    assert asked.status == 404
    assert "item nothing is none of the 40 items" in asked.json["detail"]


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/", None, ["query", "uid"]),
        ("/?uid=1&n=0", None, ["query", "n"]),
        ("/?uid=1&n=many", None, ["query", "n"]),
        ("/?uid=1&popular=perhaps", None, ["query", "popular"]),
        (f"/?uid={'9' * 201}", None, ["query", "uid"]),
        ("/users/1/recommendations?n=-1", None, ["query", "n"]),
        ("/items/1/similar?n=1.5", None, ["query", "n"]),
        ("/recommendations", {"users": []}, ["body", "users"]),
        ("/recommendations", {"users": [1] * 1001}, ["body", "users"]),
        ("/recommendations", {"users": [1], "n": 0}, ["body", "n"]),
        ("/recommendations", ["users"], ["body"]),
    ],
)
def test_bad_input(service: Process, path: str, body: Any, where: list[str]) -> None:
    """422, with the place of what is wrong."""
    asked = ask(service.url + path, body)
    assert asked.status == 422
    assert asked.json["detail"][0]["loc"] == where


@pytest.mark.parametrize(
    ("path", "status"),
    [("/?uid=1", 200), ("/?uid=stranger", 404), ("/?n=0", 422), ("/nowhere", 404), ("/health", 200), ("/docs", 200)],
)
def test_every_answer_names_the_version(service: Process, path: str, status: int) -> None:
    """Whoever looks at an answer during an update knows which model gave it."""
    asked = ask(service.url + path)
    assert (asked.status, asked.headers["x-model-version"]) == (status, "20260101T000000Z-0a1b2c3d")


def test_alive_and_ready(service: Process) -> None:
    """Two questions: whether the process lives, and which model it has."""
    assert ask(f"{service.url}/health").json == {"status": "alive"}
    assert ask(f"{service.url}/ready").json == {"model": "movies", "version": "20260101T000000Z-0a1b2c3d"}


def test_metrics_count_by_route_and_status(service: Process) -> None:
    """Routes, not paths: a caller cannot make a label for each path that it tries."""

    def answers(route: str, status: int) -> float:
        text = ask(f"{service.url}/metrics").body.decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        labels = {"route": route, "status": str(status)}
        return sum(each.value for each in samples if each.name == "recommender_answers_total" and each.labels == labels)

    cases = {
        "/users/1/recommendations": ("/users/{user_id}/recommendations", 200),
        "/items/nothing/similar": ("/items/{item_id}/similar", 404),
        "/nowhere/at/all": ("none", 404),
    }
    for path, (route, status) in cases.items():
        before = answers(route, status)
        ask(service.url + path)
        assert answers(route, status) == before + 1


def test_a_connection_stays_open(service: Process) -> None:
    """Requests after each other on one connection, as a load balancer sends them."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60)
    for _ in range(3):
        connection.request("GET", "/?uid=1")
        with connection.getresponse() as reply:
            assert reply.status == 200
            reply.read()
    connection.close()


def test_openapi_has_all_endpoints_and_their_refusals(service: Process) -> None:
    """As a client is made of it."""
    paths = ask(f"{service.url}/openapi.json").json["paths"]
    assert set(paths) == {
        "/",
        "/users/{user_id}/recommendations",
        "/recommendations",
        "/items/{item_id}/similar",
        "/health",
        "/ready",
        "/metrics",
    }
    assert set(paths["/users/{user_id}/recommendations"]["get"]["responses"]) == {"200", "404", "422", "503"}
