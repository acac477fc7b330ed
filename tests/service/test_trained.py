"""What `examples/recommender` registers is what the service reads, and answers from as a loop over the model does."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import pytest
import safetensors.numpy
from recommender_service.loading import received
from recommender_service.prepare import _from_folder, prepared

from benchmarks.serving_model import write_files

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")


def test_a_trained_model_answers_as_a_loop_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same scores, but for torch's rounding, in descending order, and nothing that was rated."""
    import torch

    monkeypatch.syspath_prepend(str(EXAMPLES))
    data, trained = importlib.import_module("recommender.data"), importlib.import_module("recommender.model")
    ratings = data.make(users=40, items=60, ratings=800, seed=7).ratings
    torch.manual_seed(7)
    model = trained.MF(len(ratings.user_ids), len(ratings.item_ids), k=6, mean=3.5)
    files = {
        "weights.safetensors": safetensors.numpy.save(model.weights()),
        "rated.safetensors": safetensors.numpy.save(data.rated(ratings)),
        "catalogue.json": data.catalogue(ratings),
    }
    folder = write_files(files, tmp_path / "20260101T000000Z-0a1b2c3d")
    served = received(prepared(_from_folder(str(folder)), str(folder)))
    for user, best in enumerate(served.model.best(range(40), [1000] * 40)):
        seen = set(ratings.items[ratings.users == user].tolist())
        assert set(best.rows.tolist()) == set(range(len(ratings.item_ids))) - seen
        with torch.no_grad():
            one_by_one = [float(model(torch.tensor([user]), torch.tensor([row]))) for row in best.rows.tolist()]
        assert best.scores.tolist() == pytest.approx(one_by_one, abs=1e-5)
        assert best.scores.tolist() == sorted(best.scores.tolist(), reverse=True)
