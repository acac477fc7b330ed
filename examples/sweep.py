"""A training sweep: a small CNN on scikit-learn's digits, every configuration an AWS Batch job of its own.

    make sweep                              # on a laptop, with an emulated AWS: no account, nothing to pay
    python examples/sweep.py --gpus 1       # with a Covalent server and a stack of your own, one GPU a job

Copy this file for your own work: put your data into `load_data`, your model into `build_model`, and your
configurations into `GRID`. These are ordinary functions; `make_lattice` is the only place that knows Covalent.
Torch and scikit-learn are imported where the jobs run, so the machine that you dispatch from needs neither.

The configurations are a list of electrons: up to a few hundred, each with a node, log and error of its own in the
Covalent UI. For thousands, write one mapped electron in place of the list, `@mapped("config")`: see docs/maps.md.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import covalent as ct
from rich.console import Console
from rich.live import Live
from rich.table import Table

from covalent_cirro import CirroBatchExecutor, ElectronFailed, checkpoint, trial

SEED = 7
TEST_SHARE = 0.2  # of the digits are held out: no training and no choice ever sees them
VALIDATION_SHARE = 0.2  # of the others decide which configuration is the best
EPOCHS = 12
BATCH_SIZE = 64
POLL_S = 1.0  # seconds between two looks at the dispatch


@dataclass(frozen=True)
class Configuration:
    """What is varied."""

    channels: int
    learning_rate: float
    dropout: float

    def words(self) -> str:
        return f"{self.channels:2d} channels, learning rate {self.learning_rate:g}, dropout {self.dropout:g}"


@dataclass(frozen=True)
class Training:
    """What is known of a trained model. The curves have one value an epoch."""

    configuration: Configuration
    device: str
    seconds: float
    losses: list[float]
    accuracies: list[float]  # on the digits that the training did not see

    @property
    def accuracy(self) -> float:
        return self.accuracies[-1]


GRID = [
    Configuration(channels, learning_rate, dropout)
    for channels, learning_rate, dropout in itertools.product((8, 16), (0.0003, 0.003, 0.03), (0.0, 0.3))
]


# --- what the jobs do ---------------------------------------------------------------------------------------------


def load_data(test_share, validation_share, seed):
    """1797 handwritten digits of 8 x 8 pixels, split into three parts with all classes in proportion."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images, labels = (digits.images / 16).astype("float32")[:, None], digits.target.astype("int64")
    rest, test, rest_labels, test_labels = train_test_split(
        images, labels, test_size=test_share, stratify=labels, random_state=seed
    )
    train, validation, train_labels, validation_labels = train_test_split(
        rest, rest_labels, test_size=validation_share, stratify=rest_labels, random_state=seed
    )
    return {
        "train": (train, train_labels),
        "validation": (validation, validation_labels),
        "train+validation": (rest, rest_labels),
        "test": (test, test_labels),
    }


def build_model(configuration):
    from torch import nn

    def block(inputs, outputs):
        convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    width = configuration.channels
    return nn.Sequential(
        *block(1, width),
        *block(width, 2 * width),
        nn.MaxPool2d(2),
        *block(2 * width, 2 * width),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(configuration.dropout),
        nn.Linear(2 * width * 2 * 2, 10),
    )


def fit(configuration, train, held_out, seed):
    """Train one model. Returns it with its `Training`; the same seed gives the same model on the same machine.

    If the machine goes away (Spot), the next attempt of the job goes on with the epoch that was being trained.
    """
    import torch
    from torch.nn.functional import cross_entropy

    started = time.monotonic()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))  # a job has one vCPU: no fight for the cores
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, labels, held_out_images, held_out_labels = (
        torch.from_numpy(array).to(device) for array in (*train, *held_out)
    )
    model = build_model(configuration).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=configuration.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=configuration.learning_rate,
        epochs=EPOCHS,
        steps_per_epoch=-(-len(images) // BATCH_SIZE),
    )
    losses, accuracies = [], []
    saved = checkpoint.folder() / "training.pt"
    if saved.exists():
        state = torch.load(saved, map_location=device, weights_only=True)
        losses, accuracies = state["losses"], state["accuracies"]
        started -= state["seconds"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        set_random_state(state["random"])
        print(f"attempt {checkpoint.attempt()} goes on after epoch {len(losses)}", flush=True)
    for epoch in range(len(losses) + 1, EPOCHS + 1):
        model.train()
        total = 0.0
        for batch in torch.randperm(len(images), device=device).split(BATCH_SIZE):
            loss = cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        model.eval()
        with torch.no_grad():
            right = model(held_out_images).argmax(dim=1) == held_out_labels
        losses.append(total / len(images))
        accuracies.append(right.float().mean().item())
        trial.report(epoch, accuracies[-1])
        state = {
            "losses": losses,
            "accuracies": accuracies,
            "seconds": time.monotonic() - started,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "random": random_state(),
        }
        torch.save(state, saved)
        checkpoint.save()
        print(f"epoch {epoch:2d}  loss {losses[-1]:.4f}  accuracy {accuracies[-1]:.4f}", flush=True)
        if epoch < EPOCHS and checkpoint.host_is_going():
            sys.exit("the host is going away: the next attempt goes on here")
    return model, Training(configuration, str(device), time.monotonic() - started, losses, accuracies)


def random_state():
    """Of the generators that draw the order of the digits and what dropout leaves out."""
    import torch

    return {"cpu": torch.get_rng_state(), "gpus": torch.cuda.get_rng_state_all()}


def set_random_state(state):
    import torch

    torch.set_rng_state(state["cpu"].cpu())
    torch.cuda.set_rng_state_all([each.cpu() for each in state["gpus"]])


def train(data, configuration, seed):
    """One point of the grid: trained on the training digits, scored on the validation digits."""
    return fit(configuration, data["train"], data["validation"], seed)[1]


def rank(*trainings):
    """The most accurate one first; of equals, the one with the lower loss. Those that failed come last."""
    failed = [each for each in trainings if isinstance(each, ElectronFailed)]
    trained = [each for each in trainings if not isinstance(each, ElectronFailed)]
    return sorted(trained, key=lambda training: (-training.accuracy, training.losses[-1])) + failed


def retrain(data, ranking, seed):
    """The best configuration, trained on all but the test digits and scored on these: the result of the sweep.

    The model comes back as the bytes of a file: whoever fetches the result needs no torch to do so.
    """
    import torch

    if isinstance(ranking[0], ElectronFailed):
        raise ranking[0]  # no configuration could be trained
    best = ranking[0].configuration
    model, final = fit(best, data["train+validation"], data["test"], seed)
    file = io.BytesIO()
    torch.save({"configuration": asdict(best), "state_dict": model.cpu().state_dict()}, file)
    failed = [str(each) for each in ranking if isinstance(each, ElectronFailed)]
    return {
        "ranking": ranking[: len(ranking) - len(failed)],
        "failed": failed,
        "final": final,
        "model": file.getvalue(),
    }


# --- the lattice --------------------------------------------------------------------------------------------------


def make_lattice(gpus):
    """The functions above as electrons: each call inside the lattice becomes a job."""
    small = CirroBatchExecutor(vcpu=1, memory=1, num_gpus=0, time_limit=600)
    large = CirroBatchExecutor(vcpu=1, memory=2, num_gpus=gpus, time_limit=1800)
    # One configuration that fails must not cost the others' ranking: its error becomes its value.
    one_of_many = CirroBatchExecutor(vcpu=1, memory=2, num_gpus=gpus, time_limit=1800, on_error="return")
    load = ct.electron(load_data, executor=small)
    train_one = ct.electron(train, executor=one_of_many)
    rank_all = ct.electron(rank, executor=small)
    retrain_best = ct.electron(retrain, executor=large)

    @ct.lattice
    def sweep(grid, seed):
        data = load(TEST_SHARE, VALIDATION_SHARE, seed)
        trainings = [train_one(data, configuration, seed) for configuration in grid]
        return retrain_best(data, rank_all(*trainings), seed)

    return sweep


# --- following it, and what comes out -----------------------------------------------------------------------------


def electron_states(address, dispatch_id):
    """Name and state of each electron of ours, from the API that Covalent's own web page uses."""
    with urllib.request.urlopen(f"{address}/api/v1/dispatches/{dispatch_id}/graph", timeout=30) as answer:
        nodes = json.load(answer)["graph"]["nodes"]
    return [(node["name"], node["status"]) for node in nodes if not node["name"].startswith(":")]


def progress_table(states, grid, elapsed_s):
    """One line an electron; the configurations come in the order in which the lattice called them."""
    configurations = iter(grid)
    table = Table(title=f"training sweep, {elapsed_s:.0f} s", title_justify="left", box=None)
    table.add_column("electron")
    table.add_column("configuration")
    table.add_column("state")
    colours = {"RUNNING": "yellow", "COMPLETED": "green", "FAILED": "red", "CANCELLED": "red"}
    for name, state in states:
        what = next((each.words() for each in configurations), "") if name == "train" else ""
        word = "waiting" if state == "NEW_OBJECT" else state.lower()
        table.add_row(name, what, f"[{colours.get(state, 'dim')}]{word}[/]")
    return table


def follow(address, dispatch_id, grid, console):
    """Show the electrons' states until the dispatch has ended; returns how it ended."""
    started, shown = time.monotonic(), None
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            status = str(ct.get_result(dispatch_id, wait=False, status_only=True)["status"])
            states = electron_states(address, dispatch_id)
            if console.is_terminal:
                live.update(progress_table(states, grid, time.monotonic() - started), refresh=True)
            elif states != shown:  # in a log file: a line for each change
                counts = Counter("waiting" if state == "NEW_OBJECT" else state.lower() for _, state in states)
                console.print(", ".join(f"{count} {word}" for word, count in sorted(counts.items())))
                shown = states
            if status in ("COMPLETED", "FAILED", "CANCELLED"):
                return status
            time.sleep(POLL_S)


def print_ranking(ranking, console):
    """All configurations, the best first."""
    table = Table(title="accuracy on the validation digits", title_justify="left", box=None)
    for header in ("rank", "accuracy", "channels", "learning rate", "dropout", "seconds", "device"):
        table.add_column(header, justify="right")
    for place, training in enumerate(ranking, start=1):
        varied = [f"{value:g}" for value in asdict(training.configuration).values()]
        table.add_row(str(place), f"{training.accuracy:.2%}", *varied, f"{training.seconds:.1f}", training.device)
    console.print(table)


def draw_curves(ranking, path):
    """Accuracy by epoch, side by side for each width of the network; the chosen model's curve is thick."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    widths = sorted({training.configuration.channels for training in ranking})
    rates = sorted({training.configuration.learning_rate for training in ranking})
    colours = dict(zip(rates, ("#4477aa", "#ee6677", "#228833", "#aa3377", "#66ccee"), strict=False))
    figure, panels = pyplot.subplots(
        1, len(widths), figsize=(5 * len(widths), 4.5), sharey=True, squeeze=False, layout="constrained"
    )
    for training in ranking:
        configuration, chosen = training.configuration, training is ranking[0]
        panels[0][widths.index(configuration.channels)].plot(
            range(1, len(training.accuracies) + 1),
            [100 * accuracy for accuracy in training.accuracies],
            color=colours[configuration.learning_rate],
            linestyle="--" if configuration.dropout else "-",
            linewidth=3.5 if chosen else 1.4,
            zorder=3 if chosen else 2,
            label=f"learning rate {configuration.learning_rate:g}, dropout {configuration.dropout:g}"
            + (" (chosen)" if chosen else ""),
        )
    for width, panel in zip(widths, panels[0], strict=True):
        panel.set_title(f"{width} channels", loc="left")
        panel.set(xlabel="epoch", ylim=(65, 101))
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.3)
        panel.legend(loc="lower right", fontsize=8)
    panels[0][0].set_ylabel("accuracy on the validation digits (%)")
    figure.suptitle(f"{len(ranking)} configurations, each an AWS Batch job of its own", x=0.01, ha="left")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main():
    parser = argparse.ArgumentParser(
        description="Train a small CNN on handwritten digits, every configuration an AWS Batch job.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of a training job")
    parser.add_argument("--output", type=Path, default="sweep-output", help="folder for the model and the picture")
    parser.add_argument("--seed", type=int, default=SEED, help="of the split and of the models")
    options = parser.parse_args()

    console = Console(highlight=False)
    address = f"http://{ct.get_config('dispatcher.address')}:{ct.get_config('dispatcher.port')}"
    dispatch_id = ct.dispatch(make_lattice(options.gpus))(GRID, options.seed)
    page = f"{address}/{dispatch_id}"
    console.print(f"{len(GRID)} configurations; watch them at {page}", soft_wrap=True)
    try:
        status = follow(address, dispatch_id, GRID, console)
    except KeyboardInterrupt:
        ct.cancel(dispatch_id)
        console.print("interrupted: the dispatch is cancelled, its jobs end")
        return 130
    result = ct.get_result(dispatch_id, wait=True)
    if status != "COMPLETED":
        console.print(f"the dispatch is {status}; see {page}", soft_wrap=True)
        failed = [node for node in result.get_all_node_results() if str(node["status"]) == "FAILED"]
        for node in failed[:1]:
            console.print(
                f"{node['node_name']} failed:\n{node['error'] or node['stderr']}", markup=False, soft_wrap=True
            )
        return 1

    ranking, final, model = (result.result[key] for key in ("ranking", "final", "model"))
    options.output.mkdir(parents=True, exist_ok=True)
    model_path, picture_path = options.output / "model.pt", options.output / "learning_curves.png"
    model_path.write_bytes(model)
    draw_curves(ranking, picture_path)
    print_ranking(ranking, console)
    for error in result.result["failed"]:
        console.print(f"left out: {error.splitlines()[0]}", markup=False, soft_wrap=True)
    console.print(
        f"best: {final.configuration.words()}\n{final.accuracy:.2%} on the held-out test digits, after retraining"
    )
    console.print(f"model    {model_path}\npicture  {picture_path}\nUI       {page}", soft_wrap=True)
    console.print(f"the dispatch is {status}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
