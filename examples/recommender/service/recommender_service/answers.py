"""The bodies of answers, as JSON: put together from encoded ids and titles, without an encoder's way over objects."""

from __future__ import annotations

import json
from collections.abc import Sequence

from recommender_service.catalogue import Catalogue
from recommender_service.model import Best


def triples(catalogue: Catalogue, best: Best) -> bytes:
    """``{"success": true, "response": [[id, title, score], ...]}``."""
    texts = catalogue.texts
    listed = [f"[{texts[row]},{score!r}]" for row, score in zip(best.rows.tolist(), best.scores.tolist(), strict=True)]
    return f'{{"success":true,"response":[{",".join(listed)}]}}'.encode()


def popular_triples(catalogue: Catalogue, n: int) -> bytes:
    """The same form with popular items, which have no score: the model does not know the user."""
    listed = [f"[{catalogue.texts[row]},null]" for row in catalogue.popular[:n]]
    return f'{{"success":true,"response":[{",".join(listed)}]}}'.encode()


def recommended(catalogue: Catalogue, user: str, best: Best) -> str:
    """``{"user": .., "source": "model", "items": [{"item": .., "title": .., "score": ..}, ...]}``."""
    return f'{{"user":{catalogue.user_id(user)},"source":"model","items":{_scored(catalogue, best, "score")}}}'


def popular(catalogue: Catalogue, user: int | str, n: int) -> str:
    """The same form with popular items and ``"source": "popular"``."""
    listed = [f'{{{catalogue.named(row)},"score":null}}' for row in catalogue.popular[:n]]
    return f'{{"user":{json.dumps(user)},"source":"popular","items":[{",".join(listed)}]}}'


def unknown(user: int | str) -> str:
    """The same form for a user that the model does not know, with ``"source": "unknown"`` and no item."""
    return f'{{"user":{json.dumps(user)},"source":"unknown","items":[]}}'


def answers(each: Sequence[str]) -> bytes:
    """``{"answers": [...]}``: one for each user of a batch."""
    return f'{{"answers":[{",".join(each)}]}}'.encode()


def similar(catalogue: Catalogue, row: int, best: Best) -> bytes:
    """``{"item": .., "title": .., "similar": [{"item": .., "title": .., "similarity": ..}, ...]}``."""
    return f'{{{catalogue.named(row)},"similar":{_scored(catalogue, best, "similarity")}}}'.encode()


def _scored(catalogue: Catalogue, best: Best, name: str) -> str:
    listed = [
        f'{{{catalogue.named(row)},"{name}":{score!r}}}'
        for row, score in zip(best.rows.tolist(), best.scores.tolist(), strict=True)
    ]
    return f"[{','.join(listed)}]"
