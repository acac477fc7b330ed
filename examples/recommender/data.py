"""Ratings: reads those of MovieLens, makes some of a known model, shares them out, and says which items are popular."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

MEAN = 3.5
"""Mean of ratings that are made: the global bias."""

BIAS_SPREAD = 0.4
"""Standard deviation of the biases of users, and of items, of ratings that are made."""

TASTE_SPREAD = 0.6
"""Standard deviation of what an item is to one user and not to others, in ratings that are made."""

STARS = np.arange(1.0, 6.0)
"""What ratings can be that are made and rounded, as those of MovieLens before 2003."""


class Ratings(NamedTuple):
    """Ratings, sorted by user and item. Nobody rates an item twice.

    Attributes:
        users: Row of the user of each rating, int32, shape (ratings,).
        items: Row of the item of each rating, int32, shape (ratings,).
        values: The ratings, float32, shape (ratings,).
        user_ids: Ids of the users by row, int64, shape (users,).
        item_ids: Ids of the items by row, int64, shape (items,).
        titles: Titles of the items by row.
    """

    users: np.ndarray
    items: np.ndarray
    values: np.ndarray
    user_ids: np.ndarray
    item_ids: np.ndarray
    titles: list[str]

    def part(self, chosen: np.ndarray) -> Ratings:
        """Some of the ratings, of the same users and items; ``chosen`` is a mask, or indices in ascending order."""
        return self._replace(users=self.users[chosen], items=self.items[chosen], values=self.values[chosen])


class MadeRatings(NamedTuple):
    """Ratings of a known model.

    Attributes:
        ratings: The ratings.
        expected: The best prediction of each rating: its expectation, float64, shape (ratings,).
        noise: Root mean square error of the best predictions. No model is better, except by chance.
    """

    ratings: Ratings
    expected: np.ndarray
    noise: float


class Split(NamedTuple):
    """Ratings in three parts: one to train with, one to choose by, and one that no choice ever sees."""

    train: Ratings
    validation: Ratings
    test: Ratings

    @property
    def rest(self) -> Ratings:
        """All but the test part, for the training of what was chosen."""
        both = [np.concatenate(each) for each in zip(self.train[:3], self.validation[:3], strict=True)]
        return self.train._replace(users=both[0], items=both[1], values=both[2])


def split(ratings: Ratings, seed: int, share: float = 0.1) -> Split:
    """Draw the test part and the validation part, each of which is a share of all ratings."""
    part = np.random.default_rng(seed).random(len(ratings.values))
    return Split(
        ratings.part(part >= 2 * share), ratings.part((part >= share) & (part < 2 * share)), ratings.part(part < share)
    )


def digest(ratings: Ratings) -> str:
    """SHA-256 of users, items and ratings, in hex; whatever order they were read in."""
    found = hashlib.sha256()
    for array in ratings[:5]:
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


# --- reading ----------------------------------------------------------------------------------------------------------


class Form(NamedTuple):
    """A form in which GroupLens publishes MovieLens.

    Attributes:
        ratings: Name of the file with the ratings.
        titles: Name of the file with the titles.
        separator: What is between two fields.
        columns: Columns of user, item and rating, as `numpy.loadtxt` counts them: it knows separators of one
            character only, so that ``::`` has an empty column in it.
        header: Lines before the first rating.
        encoding: Encoding of the titles.
    """

    ratings: str
    titles: str
    separator: str
    columns: tuple[int, int, int]
    header: int
    encoding: str


FORMS = (
    Form("u.data", "u.item", "\t", (0, 1, 2), 0, "latin-1"),
    Form("ratings.dat", "movies.dat", ":", (0, 2, 4), 0, "latin-1"),
    Form("ratings.csv", "movies.csv", ",", (0, 1, 2), 1, "utf-8"),
)
"""Those of ml-100k, of ml-1m and ml-10m, and of ml-20m, ml-25m, ml-32m and ml-latest."""


def read(folder: Path) -> Ratings:
    """Read a folder of MovieLens as its archive has it. Nothing is downloaded.

    Items that nobody rated are left out. An item without a title is called by its id.

    Raises:
        FileNotFoundError: The folder has no ratings of MovieLens in it, or no titles.
        ValueError: A file has another form.
    """
    form = next((each for each in FORMS if (folder / each.ratings).exists()), None)
    if form is None:
        raise FileNotFoundError(
            f"{folder} has none of {', '.join(each.ratings for each in FORMS)}: give the folder of a MovieLens archive "
            "(https://grouplens.org/datasets/movielens), unpacked: ml-100k, ml-1m or ml-25m."
        )
    path = folder / form.ratings
    row = [("user", np.int64), ("item", np.int64), ("rating", np.float32)]
    try:
        table = np.loadtxt(
            path,
            dtype=row,
            delimiter=form.separator,
            usecols=form.columns,
            skiprows=form.header,
            ndmin=1,
            comments=None,
        )
    except ValueError as error:
        raise ValueError(f"{path} is no file of ratings as {form.ratings} of MovieLens is: {error}") from error
    if not len(table) or not np.isfinite(table["rating"]).all():
        raise ValueError(f"{path} has {'a rating that is no number' if len(table) else 'no ratings'}")
    return collected(table["user"], table["item"], table["rating"], _titles(folder / form.titles, form), str(path))


def collected(
    user_ids: np.ndarray, item_ids: np.ndarray, values: np.ndarray, titles: dict[int, str], source: str
) -> Ratings:
    """Ratings from columns of ids and values, all of shape (ratings,), in any order.

    Raises:
        ValueError: A user rated an item twice.
    """
    order = np.lexsort((item_ids, user_ids))
    known_users, users = np.unique(user_ids[order], return_inverse=True)
    known_items, items = np.unique(item_ids[order], return_inverse=True)
    twice = np.flatnonzero((np.diff(users) == 0) & (np.diff(items) == 0))
    if len(twice):
        first = order[twice[0]]
        raise ValueError(f"{source}: user {user_ids[first]} rated item {item_ids[first]} more than once")
    return Ratings(
        users.astype(np.int32),
        items.astype(np.int32),
        values[order].astype(np.float32),
        known_users.astype(np.int64),
        known_items.astype(np.int64),
        [titles.get(each, str(each)) for each in known_items.tolist()],
    )


def _titles(path: Path, form: Form) -> dict[int, str]:
    """Titles by id of the item."""
    with path.open(encoding=form.encoding, newline="") as file:
        if form.header:
            rows = [row[:2] for row in csv.reader(file)][form.header :]
        else:
            between = "|" if form.ratings == "u.data" else form.separator * 2
            rows = [line.split(between, 2)[:2] for line in file if line.strip()]
    try:
        return {int(item): title for item, title in rows}
    except ValueError as error:
        raise ValueError(f"{path} is no file of titles as {form.titles} of MovieLens is: {error}") from error


# --- making -----------------------------------------------------------------------------------------------------------


def make(
    users: int, items: int, ratings: int, seed: int, k: int = 3, noise: float = 0.5, rounded: bool = False
) -> MadeRatings:
    """Make ratings of a known model of the recommender's own form, with normal noise.

    Args:
        users: Number of users.
        items: Number of items.
        ratings: Number of ratings, of pairs that are drawn evenly; at most ``users * items``.
        seed: Seed of all that is drawn.
        k: Length of the vectors of users and items.
        noise: Standard deviation of the noise, in stars.
        rounded: Round the ratings to whole stars from 1 to 5. Otherwise they are real numbers, below 1 and above 5 too.
    """
    draw = np.random.default_rng(seed)
    spread = math.sqrt(TASTE_SPREAD) / k**0.25  # then the products have the standard deviation TASTE_SPREAD
    user_vectors, item_vectors = draw.normal(0, spread, (users, k)), draw.normal(0, spread, (items, k))
    user_biases, item_biases = draw.normal(0, BIAS_SPREAD, users), draw.normal(0, BIAS_SPREAD, items)
    pairs = np.sort(draw.choice(users * items, ratings, replace=False))
    user, item = np.divmod(pairs, items)
    middle = (
        MEAN + user_biases[user] + item_biases[item] + np.einsum("rk,rk->r", user_vectors[user], item_vectors[item])
    )
    values = middle + draw.normal(0, noise, ratings)
    expected, least = middle, noise
    if rounded:
        values = np.clip(np.rint(values), STARS[0], STARS[-1])
        expected, variances = _of_stars(middle, noise)
        least = math.sqrt(variances.mean())
    names = {each: f"Film {each}" for each in range(1, items + 1)}
    return MadeRatings(collected(user + 1, item + 1, values, names, "made ratings"), expected, least)


def _of_stars(middle: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Expectation and variance of rounded ratings, whose normal distributions have these middles."""
    below = np.zeros(len(middle))  # probability of fewer stars
    first, second = np.zeros(len(middle)), np.zeros(len(middle))
    for star in STARS:
        edge = np.inf if star == STARS[-1] else star + 0.5
        up_to = np.array([0.5 * math.erfc((each - edge) / (noise * math.sqrt(2))) for each in middle])
        first += star * (up_to - below)
        second += star**2 * (up_to - below)
        below = up_to
    return first, second - first**2


# --- what a service needs besides the weights -------------------------------------------------------------------------


def popular(ratings: Ratings) -> np.ndarray:
    """Rows of the items, those with the most ratings first; of equals, those with the better ratings."""
    counts = np.bincount(ratings.items, minlength=len(ratings.item_ids))
    sums = np.bincount(ratings.items, weights=ratings.values, minlength=len(ratings.item_ids))
    return np.lexsort((-sums / counts, -counts))


def catalogue(ratings: Ratings) -> bytes:
    """``catalogue.json``: ids of users and items by row, titles of items by row, and rows of items by popularity."""
    found = {
        "users": ratings.user_ids.tolist(),
        "items": ratings.item_ids.tolist(),
        "titles": ratings.titles,
        "popular": popular(ratings).tolist(),
    }
    return json.dumps(found, ensure_ascii=False).encode()


def rated(ratings: Ratings) -> dict[str, np.ndarray]:
    """What each user has rated, as a compressed sparse matrix without values.

    Returns:
        ``indptr``, int64, shape (users + 1,), and ``indices``, int32, shape (ratings,): the rows of the items that the
        user of row ``u`` has rated are ``indices[indptr[u]:indptr[u + 1]]``, in ascending order.
    """
    counts = np.bincount(ratings.users, minlength=len(ratings.user_ids))
    return {"indptr": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), "indices": ratings.items}
