"""The service's model gives what a loop over all items gives, to the last item."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recommender_service.model import BLOCK_SCORES, Model, highest
from recommender_service.prepare import model_arrays
from recommender_service.together import Together

from benchmarks.serving_model import MadeModel, made

Scored = list[tuple[int, float]]


def model_of(case: MadeModel) -> Model:
    """The service's model of a made one."""
    counts = [len(rows) for rows in case.rated]
    rated = {
        "indptr": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "indices": np.array([row for rows in case.rated for row in rows], np.int32),
    }
    return Model(**model_arrays(case.tensors, rated))


def loop(case: MadeModel, user: int, n: int) -> Scored:
    """The answer as a person would write it down: each item by itself, all sorted."""
    tensors = case.tensors
    scored = []
    for item in range(len(case.items)):
        if item in set(map(int, case.rated[user])):
            continue
        products = [float(a) * float(b) for a, b in zip(tensors["user"][user], tensors["item"][item], strict=True)]
        biases = [float(tensors["bias"][0]), float(tensors["bias_user"][user]), float(tensors["bias_item"][item])]
        scored.append((item, float(np.float32(math.fsum(products + biases)))))
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:n]


def similar_by_loop(case: MadeModel, item: int, n: int) -> Scored:
    """The same for similar items."""
    vectors = [[float(value) for value in vector] for vector in case.tensors["item"]]
    norms = [math.sqrt(math.fsum(value * value for value in vector)) or 1.0 for vector in vectors]
    scored = [
        (other, math.fsum(a * b for a, b in zip(vectors[item], vectors[other], strict=True)))
        for other in range(len(vectors))
        if other != item
    ]
    cosines = [(other, float(np.float32(product / (norms[item] * norms[other])))) for other, product in scored]
    return sorted(cosines, key=lambda pair: (-pair[1], pair[0]))[:n]


def listed(best: Any) -> Scored:
    """An answer as pairs of row and score."""
    return list(zip(best.rows.tolist(), best.scores.tolist(), strict=True))


@st.composite
def models(draw: st.DrawFn) -> MadeModel:
    """Models of small whole numbers: sums are exact, and many scores are equal."""
    users, items, k = draw(st.integers(1, 5)), draw(st.integers(1, 12)), draw(st.integers(1, 4))

    def tensor(*shape: int) -> np.ndarray[Any, Any]:
        count = math.prod(shape)
        values = draw(st.lists(st.integers(-3, 3), min_size=count, max_size=count))
        return np.array(values, np.float32).reshape(shape)

    return MadeModel(
        {
            "user": tensor(users, k),
            "item": tensor(items, k),
            "bias_user": tensor(users),
            "bias_item": tensor(items),
            "bias": tensor(1),
        },
        [sorted(draw(st.sets(st.integers(0, items - 1)))) for _ in range(users)],
        range(users),
        range(items),
        [f"title {item}" for item in range(items)],
        draw(st.permutations(range(items))),
    )


@given(models(), st.integers(1, 15), st.data())
def test_a_batch_gets_what_a_loop_over_the_model_gives(case: MadeModel, n: int, data: st.DataObject) -> None:
    """With ties in the order of the rows, without what the user has rated, and all that is left where n is larger."""
    users: Sequence[int] = data.draw(st.lists(st.integers(0, len(case.users) - 1), min_size=1, max_size=8))
    answers = model_of(case).best(users, [n] * len(users))
    assert [listed(best) for best in answers] == [loop(case, user, n) for user in users]


@given(models(), st.integers(1, 15), st.data())
def test_similar_items_are_what_a_loop_gives(case: MadeModel, n: int, data: st.DataObject) -> None:
    """Without the item itself; a vector of zeros is similar to none."""
    item = data.draw(st.integers(0, len(case.items) - 1))
    assert listed(model_of(case).similar(item, n)) == similar_by_loop(case, item, n)


def test_real_numbers_too() -> None:
    """Vectors as training leaves them: the same items and the same scores, bit for bit."""
    case = made(users=40, items=300, k=18, ratings=2_000)
    model = model_of(case)
    users = range(40)
    alone = [listed(model.best([user], [25])[0]) for user in users]
    assert alone == [loop(case, user, 25) for user in users]
    assert [listed(best) for best in model.best(users, [25] * 40)] == alone


def test_a_batch_of_more_than_one_product_is_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of a product's memory changes no answer."""
    case = made(users=20, items=30, k=3, ratings=100)
    model = model_of(case)
    whole = [listed(best) for best in model.best(range(20), [5] * 20)]
    assert BLOCK_SCORES > 20 * 30
    monkeypatch.setattr("recommender_service.model.BLOCK_SCORES", 7 * 30)
    assert [listed(best) for best in model.best(range(20), [5] * 20)] == whole


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60), st.data())
def test_the_highest_are_those_of_a_sorted_list(scores: list[float], data: st.DataObject) -> None:
    """Whatever the scores are."""
    n = data.draw(st.integers(0, len(scores)))
    found = highest(np.array(scores, np.float32), n)
    rows = sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:n]
    assert found.rows.tolist() == rows
    assert found.scores.tolist() == [scores[row] for row in rows]


@given(st.integers(0, 2**32), st.integers(0, 700), st.sampled_from([2, 30, 10_000]))
def test_the_highest_of_many(seed: int, n: int, different: int) -> None:
    """Where most scores are never sorted; many of them are equal, and some are left out."""
    scores = np.random.default_rng(seed).integers(0, different, 700).astype(np.float32)
    scores[scores == 1] = -np.inf
    expected = np.argsort(-scores, kind="stable")[:n]
    assert highest(scores, n).rows.tolist() == expected.tolist()


def test_a_user_who_has_rated_all_gets_nothing() -> None:
    """An empty answer, and no error."""
    case = made(users=2, items=6, k=2, ratings=4)._replace(rated=[range(6), [1, 4]])
    all_rated, some_rated = model_of(case).best([0, 1], [10, 10])
    assert listed(all_rated) == []
    assert sorted(some_rated.rows.tolist()) == [0, 2, 3, 5]


async def test_requests_of_one_moment_are_one_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets its own answer, of its own length; later ones are a further product."""
    case = made(users=20, items=30, k=3, ratings=100)
    model = model_of(case)
    together = Together(model)
    products: list[int] = []

    def counted(users: Sequence[int], counts: Sequence[int]) -> Any:
        products.append(len(users))
        return Model._best_of_block(model, users, counts)

    monkeypatch.setattr(model, "_best_of_block", counted)
    answers = await asyncio.gather(*(together.best(user, user % 4) for user in range(20)))
    assert [listed(best) for best in answers] == [loop(case, user, user % 4) for user in range(20)]
    assert products == [20]
    assert listed(await together.best(3, 2)) == loop(case, 3, 2)
    assert products == [20, 1]


async def test_an_error_reaches_each_request() -> None:
    """None waits for ever."""
    model = model_of(made(users=2, items=3, k=1, ratings=2))
    together = Together(model)
    found = await asyncio.gather(together.best(0, 1), together.best(99, 1), return_exceptions=True)
    assert [type(each) for each in found] == [IndexError, IndexError]
