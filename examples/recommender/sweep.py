"""Trains a recommender: a sweep as jobs of AWS Batch; the best configuration, trained on all ratings, is registered.

    make serve                                            # on a laptop, with an emulated AWS: no account, no cost
    python examples/recommender/sweep.py --data ml-1m     # with a Covalent server and a stack of your own

Without `--data` the ratings are made of a known model, so that the best possible error is known. The configurations
are a map: one node of the lattice, and one array job whose jobs share them. The ratings go to the bucket once. Torch is
imported where the jobs run; this program needs NumPy and safetensors (`pip install 'covalent-cirro[models]'`).
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import covalent as ct
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # the package `recommender` is this folder

from covalent_cirro import CirroBatchExecutor, ElectronFailed, mapped, models, stored  # noqa: E402
from recommender import data  # noqa: E402

SEED = 7
JOBS = 4  # that share the configurations, at most: one of them takes seconds
ROWS = 10  # of the ranking that are printed


# --- what the jobs do -------------------------------------------------------------------------------------------------


def train(configuration, ratings, seed):
    """One configuration: trained on the training part, scored on the validation part after each epoch."""
    from covalent_cirro import trial
    from recommender import data, model

    return model.train(configuration, data.split(ratings, seed), seed, trial.report)


def retrain(trainings, ratings, seed):
    """The best configuration: judged on the test part, then trained on all ratings. The weights come back as arrays."""
    import platform

    import torch

    from recommender import data, model

    trained = [each for each in trainings if not isinstance(each, ElectronFailed)]
    if not trained:
        raise trainings[0]  # no configuration could be trained
    ranking = sorted(trained, key=lambda training: training["errors"][-1])
    best = ranking[0]["configuration"]
    metrics = model.judge(best, data.split(ratings, seed), seed)
    return {
        "ranking": ranking,
        "failed": [str(each) for each in trainings if isinstance(each, ElectronFailed)],
        "metrics": metrics,
        "weights": model.fit(ratings, **best, seed=seed).weights(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


# --- the lattice ------------------------------------------------------------------------------------------------------


def make_lattice(gpus):
    """The functions above as electrons: the first is called once for each configuration."""
    needs = {"vcpu": 1, "memory": 2, "num_gpus": gpus, "time_limit": 7200, "local_packages": [str(HERE)]}
    # One configuration that fails must not cost the others' ranking: its error becomes its value.
    train_each = mapped("configuration")(
        ct.electron(train, executor=CirroBatchExecutor(**needs, array_size=JOBS, on_error="return"))
    )
    retrain_best = ct.electron(retrain, executor=CirroBatchExecutor(**needs))

    @ct.lattice
    def recommender(configurations, ratings, seed):
        return retrain_best(train_each(configurations, ratings, seed), ratings, seed)

    return recommender


def grid(k, c_vector, c_bias, learning_rate):
    """All combinations."""
    names = ("k", "c_vector", "c_bias", "learning_rate")
    return [dict(zip(names, each, strict=True)) for each in itertools.product(k, c_vector, c_bias, learning_rate)]


# --- what comes out ---------------------------------------------------------------------------------------------------


def words(configuration):
    """A configuration in a line."""
    return ", ".join(f"{name} {value:g}" for name, value in configuration.items())


def print_ranking(ranking, console):
    """The best configurations."""
    table = Table(title="error on the validation part, in stars", title_justify="left", box=None)
    for header in ("rank", "error", *ranking[0]["configuration"], "seconds"):
        table.add_column(header, justify="right")
    for place, training in enumerate(ranking[:ROWS], start=1):
        varied = [f"{value:g}" for value in training["configuration"].values()]
        table.add_row(str(place), f"{training['errors'][-1]:.4f}", *varied, f"{training['seconds']:.1f}")
    console.print(table)


def register(name, result, ratings, dispatch_id, node_id):
    """Put the weights into the registry, with what a service needs besides."""
    import safetensors.numpy

    return models.register(
        name,
        result["weights"],
        files={
            "catalogue.json": data.catalogue(ratings),
            "rated.safetensors": safetensors.numpy.save(data.rated(ratings)),
        },
        metrics=result["metrics"],
        parameters=result["ranking"][0]["configuration"],
        data_digest=data.digest(ratings),
        dispatch=dispatch_id,
        node=node_id,
        versions=result["versions"],
    )


def main():
    parser = argparse.ArgumentParser(
        description="Train a recommender, every configuration in jobs of AWS Batch, and register the best.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="folder of MovieLens (ml-100k, ml-1m, ml-25m); unset: made ratings")
    parser.add_argument("--users", type=int, default=1000, help="users of made ratings")
    parser.add_argument("--items", type=int, default=500, help="items of made ratings")
    parser.add_argument("--ratings", type=int, default=200_000, help="number of made ratings")
    parser.add_argument("--k", type=int, nargs="+", default=[3, 8], help="lengths of the vectors")
    parser.add_argument(
        "--c-vector", type=float, nargs="+", default=[1e-6, 1e-5], help="weights of the vectors' squares"
    )
    parser.add_argument("--c-bias", type=float, nargs="+", default=[1e-6, 1e-5], help="weights of the biases' squares")
    parser.add_argument("--learning-rate", type=float, nargs="+", default=[0.01, 0.03], help="largest learning rates")
    parser.add_argument("--name", default="recommender", help="name of the model in the registry")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of a job; a job without one trains on the CPU")
    parser.add_argument("--seed", type=int, default=SEED, help="of made ratings, the split and the models")
    options = parser.parse_args()

    console = Console(highlight=False, soft_wrap=True)
    made = None
    if options.data is None:
        made = data.make(options.users, options.items, options.ratings, options.seed)
    ratings = data.read(options.data) if made is None else made.ratings
    console.print(
        f"{len(ratings.values):,} ratings of {len(ratings.item_ids):,} items by {len(ratings.user_ids):,} users"
        + ("" if made is None else f", made with noise of {made.noise:g} stars: no model has a smaller error")
    )
    configurations = grid(options.k, options.c_vector, options.c_bias, options.learning_rate)
    dispatch_id = ct.dispatch(make_lattice(options.gpus))(configurations, stored(ratings), options.seed)
    page = f"http://{ct.get_config('dispatcher.address')}:{ct.get_config('dispatcher.port')}/{dispatch_id}"
    console.print(f"{len(configurations)} configurations; watch them at {page}")
    try:
        result = ct.get_result(dispatch_id, wait=True)
    except KeyboardInterrupt:
        ct.cancel(dispatch_id)
        console.print("interrupted: the dispatch is cancelled, its jobs end")
        return 130
    if str(result.status) != "COMPLETED":
        console.print(f"the dispatch is {result.status}; see {page}\n{result.error or ''}", markup=False)
        return 1

    found = result.result
    print_ranking(found["ranking"], console)
    for error in found["failed"]:
        console.print(f"left out: {error.splitlines()[0]}", markup=False)
    metrics = found["metrics"]
    console.print(
        f"best     {words(found['ranking'][0]['configuration'])}\n"
        f"error    {metrics['rmse']:.4f} stars on the test part"
        + ("" if made is None else f", {metrics['rmse'] / made.noise - 1:.1%} more than the noise")
        + f"; biases alone have {metrics['rmse_biases']:.4f}, the mean {metrics['rmse_mean']:.4f}"
    )
    (node_id,) = [node["node_id"] for node in result.get_all_node_results() if node["node_name"] == "retrain"]
    version = register(options.name, found, ratings, dispatch_id, node_id)
    console.print(
        f"model    {version.uri}\n"
        f"next     cirro models {version.name}   (its versions; this one is the current one now)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
