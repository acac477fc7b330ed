"""The numerics of examples/recommender: MovieLens is read, made data has its noise, and the model comes near it."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SEED = 7

# Only looked for: whoever collects the tests would import torch.
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


@pytest.fixture(scope="module")
def recommender() -> Iterator[Any]:
    """The modules of the package, which is not on the path; `model`, which needs torch, is imported when it is used."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        yield SimpleNamespace(
            data=importlib.import_module("recommender.data"),
            model=importlib.import_module("recommender.model") if importlib.util.find_spec("torch") else None,
        )


# --- reading ----------------------------------------------------------------------------------------------------------

FILES = {
    "ml-100k": {
        "u.data": "20\t7\t3\t881250949\n3\t9\t4\t881250950\n20\t9\t1\t881250951\n",
        "u.item": "7|Misérables, Les (1995)|01-Jan-1995||http://x|0|1\n8|Unrated|||\n9|Heat (1995)|01-Jan-1995||y|0\n",
    },
    "ml-1m": {
        "ratings.dat": "20::7::3::978300760\n3::9::4::978302109\n20::9::1::978301968\n",
        "movies.dat": "7::Misérables, Les (1995)::Drama\n8::Unrated::Comedy\n9::Heat (1995)::Action|Crime\n",
    },
    "ml-25m": {
        "ratings.csv": "userId,movieId,rating,timestamp\n20,7,3.0,11478800\n3,9,4.0,11478688\n20,9,1.0,11478688\n",
        "movies.csv": 'movieId,title,genres\n7,"Misérables, Les (1995)",Drama\n8,Unrated,Comedy\n9,Heat (1995),Crime\n',
    },
}
"""The same three ratings in the three forms."""


def write(folder: Path, name: str) -> Path:
    """A folder as GroupLens' archive has it."""
    place = folder / name
    place.mkdir()
    for file, text in FILES[name].items():
        (place / file).write_text(text, encoding="utf-8" if file.endswith(".csv") else "latin-1")
    return place


@pytest.mark.parametrize("name", FILES)
def test_movielens_is_read_in_each_of_its_forms(recommender: Any, tmp_path: Path, name: str) -> None:
    """Sorted by user and item, with titles; items that nobody rated are left out."""
    found = recommender.data.read(write(tmp_path, name))
    assert found.user_ids.tolist() == [3, 20]
    assert found.item_ids.tolist() == [7, 9]
    assert found.titles == ["Misérables, Les (1995)", "Heat (1995)"]
    assert list(zip(found.users.tolist(), found.items.tolist(), found.values.tolist(), strict=True)) == [
        (0, 1, 4.0),
        (1, 0, 3.0),
        (1, 1, 1.0),
    ]


def test_the_same_ratings_have_the_same_digest(recommender: Any, tmp_path: Path) -> None:
    """Whatever file they are read from, in whatever order; one rating more or less is another digest."""
    found = [recommender.data.read(write(tmp_path, name)) for name in FILES]
    digests = {recommender.data.digest(each) for each in found}
    assert len(digests) == 1
    turned = tmp_path / "ml-1m" / "ratings.dat"
    turned.write_text("".join(reversed(turned.read_text().splitlines(keepends=True))))
    assert recommender.data.digest(recommender.data.read(tmp_path / "ml-1m")) in digests
    turned.write_text(turned.read_text().replace("::4::", "::5::"))
    assert recommender.data.digest(recommender.data.read(tmp_path / "ml-1m")) not in digests


def test_half_stars_are_read(recommender: Any, tmp_path: Path) -> None:
    """MovieLens has them since 2003."""
    folder = write(tmp_path, "ml-25m")
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,7,3.5,0\n")
    assert recommender.data.read(folder).values.tolist() == [3.5]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1::7::good::0\n", "no file of ratings"),
        ("1::7\n", "no file of ratings"),
        ("1::7::nan::0\n", "no number"),
        ("1::7::3::0\n1::7::4::0\n", "user 1 rated item 7 more than once"),
    ],
)
def test_a_file_that_is_none_of_movielens_is_an_error(recommender: Any, tmp_path: Path, text: str, why: str) -> None:
    """With the file, and what is wrong with it."""
    folder = write(tmp_path, "ml-1m")
    (folder / "ratings.dat").write_text(text)
    with pytest.raises(ValueError, match=why) as caught:
        recommender.data.read(folder)
    assert "ratings.dat" in str(caught.value)


def test_a_folder_without_ratings_is_an_error(recommender: Any, tmp_path: Path) -> None:
    """It says what is expected, and downloads nothing."""
    with pytest.raises(FileNotFoundError, match=r"u\.data, ratings\.dat, ratings\.csv"):
        recommender.data.read(tmp_path)


# --- making -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounded", [False, True])
def test_made_ratings_have_the_noise_that_is_told(recommender: Any, rounded: bool) -> None:
    """The best prediction of each is off by it, and predicts neither too much nor too little."""
    made = recommender.data.make(400, 300, 60_000, SEED, noise=0.7, rounded=rounded)
    errors = made.ratings.values - made.expected
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(made.noise, rel=0.01)
    assert np.mean(errors) == pytest.approx(0, abs=0.01)
    assert (set(np.unique(made.ratings.values)) == {1, 2, 3, 4, 5}) is rounded
    if not rounded:
        assert made.noise == 0.7


def test_made_ratings_are_the_same_for_the_same_seed(recommender: Any) -> None:
    """And others for another."""
    digests = [recommender.data.digest(recommender.data.make(40, 30, 600, seed).ratings) for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_the_parts_have_all_ratings_once(recommender: Any) -> None:
    """A tenth each to choose by and to judge by."""
    ratings = recommender.data.make(400, 300, 60_000, SEED).ratings
    parts = recommender.data.split(ratings, SEED)
    lengths = [len(each.values) for each in parts]
    assert sum(lengths) == 60_000
    assert lengths[1:] == pytest.approx([6000, 6000], rel=0.1)
    keys = [each.users.astype(np.int64) * 300 + each.items for each in (parts.rest, parts.test)]
    assert len(np.intersect1d(*keys)) == 0
    assert len(np.unique(np.concatenate(keys))) == 60_000


def test_a_service_gets_ids_titles_popularity_and_what_was_rated(recommender: Any) -> None:
    """In rows, as the weights have them."""
    ratings = recommender.data.make(40, 30, 600, SEED).ratings
    catalogue = json.loads(recommender.data.catalogue(ratings))
    assert catalogue["users"] == list(range(1, 41))
    assert catalogue["items"] == list(range(1, 31))
    assert catalogue["titles"][:2] == ["Film 1", "Film 2"]
    counts = np.bincount(ratings.items)
    assert sorted(catalogue["popular"]) == list(range(30))
    assert [counts[row] for row in catalogue["popular"]] == sorted(counts, reverse=True)
    rated = recommender.data.rated(ratings)
    assert (rated["indptr"].dtype, rated["indices"].dtype) == (np.int64, np.int32)
    for row in range(40):
        found = rated["indices"][rated["indptr"][row] : rated["indptr"][row + 1]]
        assert found.tolist() == sorted(ratings.items[ratings.users == row])


# --- the model --------------------------------------------------------------------------------------------------------

GRID = [{"k": k, "c_vector": c, "c_bias": 3e-6, "learning_rate": 0.03} for k, c in ((2, 1e-3), (2, 1e-5), (6, 1e-5))]


@needs_torch
def test_the_model_comes_near_the_noise_and_beats_simpler_ones(recommender: Any) -> None:
    """The best of a sweep is within 3 % of the noise, 25 % better than biases alone, and 40 % better than the mean."""
    made = recommender.data.make(500, 300, 60_000, SEED, k=2)
    parts = recommender.data.split(made.ratings, SEED)
    reported: list[tuple[int, float]] = []
    trainings = [
        recommender.model.train(configuration, parts, SEED, lambda *step: reported.append(step))
        for configuration in GRID
    ]
    assert reported[-1] == (recommender.model.EPOCHS, trainings[-1]["errors"][-1])
    best = min(trainings, key=lambda training: training["errors"][-1])["configuration"]
    errors = recommender.model.judge(best, parts, SEED)
    assert errors["rmse"] <= 1.03 * made.noise
    assert errors["rmse"] <= 0.75 * errors["rmse_biases"]
    assert errors["rmse"] <= 0.60 * errors["rmse_mean"]


@needs_torch
def test_the_loss_is_the_error_and_both_regularisers(recommender: Any) -> None:
    """Squares of the vectors by c_vector, of the biases by c_bias; the global bias is free."""
    import torch

    torch.manual_seed(SEED)
    model = recommender.model.MF(5, 4, k=3, c_vector=0.1, c_bias=0.01, mean=3.0)
    with torch.no_grad():
        model.bias_user.weight.normal_()
        model.bias_item.weight.normal_()
    weights = model.weights()
    users, items = np.array([0, 4, 2]), np.array([3, 3, 0])
    target = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    expected = (
        weights["bias"]
        + weights["bias_user"][users]
        + weights["bias_item"][items]
        + (weights["user"][users] * weights["item"][items]).sum(axis=1)
    )
    prediction = model(torch.from_numpy(users), torch.from_numpy(items))
    np.testing.assert_allclose(prediction.detach().numpy(), expected, rtol=1e-5)
    loss = (
        ((expected - target) ** 2).mean()
        + 0.1 * ((weights["user"] ** 2).sum() + (weights["item"] ** 2).sum())
        + 0.01 * ((weights["bias_user"] ** 2).sum() + (weights["bias_item"] ** 2).sum())
    )
    assert model.loss(prediction, torch.from_numpy(target)).item() == pytest.approx(loss, rel=1e-5)


@needs_torch
def test_weights_have_the_shapes_that_a_service_reads(recommender: Any) -> None:
    """float32: vectors by row of the user and of the item, biases, and one global bias."""
    weights = recommender.model.MF(5, 4, k=3).weights()
    assert {name: each.shape for name, each in weights.items()} == {
        "user": (5, 3),
        "item": (4, 3),
        "bias_user": (5,),
        "bias_item": (4,),
        "bias": (1,),
    }
    assert {each.dtype for each in weights.values()} == {np.dtype(np.float32)}
