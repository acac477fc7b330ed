"""``python benchmarks/serving_tutorial.py MODEL PORT``: the tutorial's Flask app, written anew, on a made model.

Its class, its loop and its calls of torch are kept: it looks through the pairs of all users with the items that they
have not rated, computes one score at a time, and sorts by the title. Left out is what would only make it slower or
impossible to start: the download of its data set, and pandas for the titles, in whose place is a dict.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import flask
import safetensors.torch
import torch

Pair = tuple[str, str, float]
Triple = tuple[str, str, float]


class MF(torch.nn.Module):
    """Matrix factorisation with biases, as in the tutorial."""

    def __init__(self, n_user: int, n_item: int, k: int) -> None:
        super().__init__()
        self.user = torch.nn.Embedding(n_user, k)
        self.item = torch.nn.Embedding(n_item, k)
        self.bias_user = torch.nn.Embedding(n_user, 1)
        self.bias_item = torch.nn.Embedding(n_item, 1)
        self.bias = torch.nn.Parameter(torch.ones(1))

    def __call__(self, train_x: torch.Tensor) -> torch.Tensor:
        """Scores of pairs of user and item, ``[pairs, 2]``."""
        user_id = train_x[:, 0]
        item_id = train_x[:, 1]
        vector_user = self.user(user_id)
        vector_item = self.item(item_id)
        bias_user = self.bias_user(user_id).squeeze()
        bias_item = self.bias_item(item_id).squeeze()
        biases = self.bias + bias_user + bias_item
        ui_interaction = torch.sum(vector_user * vector_item, dim=1)
        return ui_interaction + biases


class Trainset:
    """What the app uses of Surprise's class of this name: rows by raw ids."""

    def __init__(self, users: list[Any], items: list[Any]) -> None:
        self._users = {str(user): row for row, user in enumerate(users)}
        self._items = {str(item): row for row, item in enumerate(items)}

    def to_inner_uid(self, ruid: str) -> int:
        """Row of a user; an unknown one is a KeyError here, and a ValueError in Surprise."""
        return self._users[ruid]

    def to_inner_iid(self, riid: str) -> int:
        """Row of an item."""
        return self._items[riid]


def get_top_n(
    model: MF, testset: list[Pair], trainset: Trainset, names: dict[int, str], uid_input: str, n: int = 10
) -> list[Triple]:
    """The tutorial's loop, with its sort by the title."""
    preds: list[Triple] = []
    try:
        uid_row = int(trainset.to_inner_uid(uid_input))
    except KeyError:
        return preds
    for uid, iid, _ in testset:
        try:
            uid_internal = int(trainset.to_inner_uid(uid))
        except KeyError:
            continue
        if uid_internal == uid_row:
            try:
                iid_internal = int(trainset.to_inner_iid(iid))
                movie_name = names[int(iid)]
                preds.append((iid, movie_name, float(model(torch.tensor([[uid_row, iid_internal]])))))
            except KeyError:
                pass
    preds.sort(key=lambda x: x[1], reverse=True)
    return preds[:n]


def anti_testset(catalogue: dict[str, Any], rated: dict[str, torch.Tensor]) -> list[Pair]:
    """Pairs of all users with all items that they have not rated, as Surprise makes them."""
    users, items = [str(user) for user in catalogue["users"]], [str(item) for item in catalogue["items"]]
    start, rows = rated["indptr"].tolist(), rated["indices"].tolist()
    pairs = []
    for row, user in enumerate(users):
        of_user = set(rows[start[row] : start[row + 1]])
        pairs += [(user, item, 3.5) for column, item in enumerate(items) if column not in of_user]
    return pairs


def make_app(folder: Path) -> flask.Flask:
    """The app, with what the tutorial loads at the start."""
    catalogue = json.loads((folder / "catalogue.json").read_text())
    trainset = Trainset(catalogue["users"], catalogue["items"])
    testset = anti_testset(catalogue, safetensors.torch.load_file(folder / "rated.safetensors"))
    names = dict(zip(catalogue["items"], catalogue["titles"], strict=True))
    weights = safetensors.torch.load_file(folder / "weights.safetensors")
    model = MF(*weights["user"].shape[:1], *weights["item"].shape)
    model.load_state_dict(
        {
            "user.weight": weights["user"],
            "item.weight": weights["item"],
            "bias_user.weight": weights["bias_user"][:, None],
            "bias_item.weight": weights["bias_item"][:, None],
            "bias": weights["bias"],
        }
    )
    model.eval()
    app = flask.Flask(__name__)

    @app.route("/", methods=["GET"])
    def predict() -> flask.Response:
        data: dict[str, Any] = {"success": False}
        params = flask.request.get_json(silent=True)  # newer Flask answers 415 to `request.json` without a body
        if params is None:
            params = flask.request.args
        if "uid" in params:
            data["response"] = get_top_n(model, testset, trainset, names, params["uid"], n=10)
            data["success"] = True
        return flask.jsonify(data)

    return app


if __name__ == "__main__":
    make_app(Path(sys.argv[1])).run(host="127.0.0.1", port=int(sys.argv[2]))
