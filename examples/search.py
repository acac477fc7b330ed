"""A search instead of a grid: the sweep's model and data, with parallel Thompson sampling and early stopping.

    make search                             # on a laptop, with an emulated AWS: no account, nothing to pay
    python examples/search.py --gpus 1      # with a Covalent server and a stack of your own, one GPU a job

Each trial is a dispatch with one AWS Batch job. It reports its accuracy four times an epoch; most trials are ended
after a part of an epoch, because others do better. The study lies in a file: run the script again after Ctrl-C, or
after whatever ended it, and it goes on.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import cloudpickle
import covalent as ct
import optuna
import sweep
from optuna.distributions import FloatDistribution, IntDistribution
from rich.console import Console

from covalent_cirro import CirroBatchExecutor, checkpoint, search, trial

TRIALS = 40
AT_ONCE = 8
EPOCHS = 5
REPORTS_AN_EPOCH = 4
SPACE = {
    "channels": IntDistribution(96, 256, log=True),
    "learning_rate": FloatDistribution(3e-4, 3e-2, log=True),
    "dropout": FloatDistribution(0.0, 0.5),
}


def train(channels, learning_rate, dropout, data, seed):
    """One configuration: trained on the training digits, scored on the validation digits four times an epoch.

    If the machine goes away, or the pruner ends the trial, the state is saved; an attempt that follows goes on with it.
    """
    import torch
    from torch.nn.functional import cross_entropy

    torch.set_num_threads(1)  # a job has one vCPU: no fight for the cores
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, labels, held_out_images, held_out_labels = (
        torch.from_numpy(array).to(device) for array in (*data["train"], *data["validation"])
    )
    configuration = sweep.Configuration(channels, learning_rate, dropout)
    model = sweep.build_model(configuration).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    steps = EPOCHS * REPORTS_AN_EPOCH
    per_step = -(-len(images) // sweep.BATCH_SIZE) // REPORTS_AN_EPOCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=learning_rate, total_steps=steps * per_step + 1)
    saved = checkpoint.folder() / "training.pt"
    first, accuracy = 1, 0.0
    if saved.exists():
        state = torch.load(saved, map_location=device, weights_only=True)
        first, accuracy = state["step"] + 1, state["accuracy"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
    for step in range(first, steps + 1):
        model.train()
        for batch in torch.randperm(len(images), device=device)[: per_step * sweep.BATCH_SIZE].split(sweep.BATCH_SIZE):
            loss = cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            right = model(held_out_images).argmax(dim=1) == held_out_labels
        accuracy = right.float().mean().item()
        trial.report(step, accuracy)
        print(f"epoch {step / REPORTS_AN_EPOCH:5.2f}  accuracy {accuracy:.4f}", flush=True)
        if step % REPORTS_AN_EPOCH == 0 or checkpoint.host_is_going():
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
            }
            torch.save({**state, "step": step, "accuracy": accuracy}, saved)
            checkpoint.save()
        if step < steps and checkpoint.host_is_going():
            sys.exit("the trial is ended, or its host goes away; an attempt that follows goes on here")
    file = io.BytesIO()
    torch.save(model.cpu().state_dict(), file)
    return {"accuracy": accuracy, "model": file.getvalue()}


def epochs_computed(study):
    """By all trials, those that were ended early included."""
    return sum(each.last_step or 0 for each in study.trials) / REPORTS_AN_EPOCH


def main():
    parser = argparse.ArgumentParser(
        description="Search for the best configuration of a small CNN, each trial an AWS Batch job.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of a training job")
    parser.add_argument("--output", type=Path, default="search-output", help="folder for study, model and pictures")
    parser.add_argument("--trials", type=int, default=TRIALS, help="trials in all")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="trials in flight")
    parser.add_argument("--seed", type=int, default=sweep.SEED, help="of the split, the models and the search")
    options = parser.parse_args()

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    cloudpickle.register_pickle_by_value(sweep)  # no job can import this folder
    electron = ct.electron(train, executor=CirroBatchExecutor(vcpu=1, memory=1, num_gpus=options.gpus, time_limit=1800))
    options.output.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="digits",
        direction="maximize",
        sampler=search.ThompsonSampler(seed=options.seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=4),
        storage=f"sqlite:///{options.output}/study.db",
        load_if_exists=True,
    )
    data = sweep.load_data(sweep.TEST_SHARE, sweep.VALIDATION_SHARE, sweep.SEED)
    search.optimize(
        study,
        electron,
        space=SPACE,
        fixed={"data": data, "seed": options.seed},
        value=lambda result: result["accuracy"],
        trials=options.trials,
        at_once=options.at_once,
        pictures=options.output,
    )
    best = ct.get_result(study.best_trial.user_attrs["cirro:dispatch"], wait=True).result
    (options.output / "model.pt").write_bytes(best["model"])
    grid = len(sweep.GRID) * sweep.EPOCHS
    console = Console(highlight=False)
    console.print(
        f"{study.best_value:.2%} on the validation digits, after {epochs_computed(study):.1f} epochs of all trials "
        f"together; the grid of examples/sweep.py computes {grid}\nmodel    {options.output / 'model.pt'}",
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
