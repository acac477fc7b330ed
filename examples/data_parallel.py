"""Data-parallel training: one electron on several machines, each with several processes.

    cirro local exec -- python examples/data_parallel.py    # on a laptop, with an emulated AWS
    python examples/data_parallel.py --nodes 2 --gpus 4      # with a Covalent server and a stack of your own

The sweep's network learns the sweep's digits. `train` is an ordinary function for `torch.distributed`: each process
takes its share of each batch, and the gradients are averaged. With ``num_nodes=2, processes_per_node=2`` on its
executor it runs in four processes on two machines, which form one AWS Batch job. To show that nothing is lost, the same
function runs once more in one process, with the whole batch: both have the same loss, but for rounding.
"""

from __future__ import annotations

import argparse
import sys
import time

import cloudpickle
import covalent as ct
import sweep
from rich.console import Console
from rich.table import Table

from covalent_cirro import CirroBatchExecutor, checkpoint, trial

EPOCHS = 4
BATCH_SIZE = 96
LEARNING_RATE = 0.02
MOMENTUM = 0.9
TOLERANCE = 1e-4
"""Largest relative difference of two losses: sums of float32 in another order. It grows with each step."""


def build_model():
    """The sweep's network without dropout, and with GroupNorm.

    BatchNorm uses the mean of the digits that a process has, not of the whole batch (torch's SyncBatchNorm, which
    would, needs GPUs); GroupNorm uses those of each digit alone.
    """
    from torch import nn

    model = sweep.build_model(sweep.Configuration(channels=16, learning_rate=LEARNING_RATE, dropout=0.0))
    layers = [nn.GroupNorm(4, each.num_features) if isinstance(each, nn.BatchNorm2d) else each for each in model]
    return nn.Sequential(*layers)


def train(data, epochs, seed):
    """Train in as many processes as there are. Returns the loss of each epoch, and the accuracy on the held-out digits.

    What the process of rank 0 returns is the result of the electron. If a machine goes away, all nodes begin again,
    and go on after the last epoch that rank 0 has stored.
    """
    import torch
    import torch.distributed as dist
    from torch.nn.functional import cross_entropy
    from torch.nn.parallel import DistributedDataParallel

    started = time.monotonic()
    torch.set_num_threads(1)
    on_gpus = torch.cuda.is_available()
    # Addresses, ranks and ports are in the environment, where the runner has put them.
    dist.init_process_group("nccl" if on_gpus else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", dist.get_node_local_rank()) if on_gpus else torch.device("cpu")
    print(f"rank {rank} of {world} trains on {device}", flush=True)
    images, labels, held_out_images, held_out_labels = (
        torch.from_numpy(array).to(device) for array in (*data["train"], *data["validation"])
    )
    torch.manual_seed(seed)  # all begin with the same weights, and draw the same batches
    model = DistributedDataParallel(build_model().to(device), device_ids=[device.index] if on_gpus else None)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    order = torch.Generator().manual_seed(seed)
    if BATCH_SIZE % world:  # the mean of the processes' means is the mean of the batch if their shares are equal
        raise ValueError(f"{world} processes cannot share {BATCH_SIZE} digits equally")
    batches = len(images) // BATCH_SIZE
    losses = []
    saved = checkpoint.folder() / "training.pt"
    if saved.exists():
        state = torch.load(saved, map_location=device, weights_only=True)
        losses = state["losses"]
        model.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        for _ in losses:
            torch.randperm(len(images), generator=order)
    for _ in range(len(losses), epochs):
        total = torch.zeros((), device=device)
        for batch in torch.randperm(len(images), generator=order)[: batches * BATCH_SIZE].split(BATCH_SIZE):
            share = batch[rank::world].to(device)
            loss = cross_entropy(model(images[share]), labels[share])
            optimizer.zero_grad()
            loss.backward()  # averages the gradients of all processes
            optimizer.step()
            total += loss.detach()
        dist.all_reduce(total)
        losses.append(total.item() / world / batches)
        if rank == 0:
            state = {"losses": losses, "model": model.module.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, saved)
            checkpoint.save()
            trial.report(len(losses), losses[-1])
            print(f"epoch {len(losses):2d}  loss {losses[-1]:.6f}", flush=True)
    model.eval()
    with torch.no_grad():
        right = model.module(held_out_images).argmax(dim=1) == held_out_labels
    dist.destroy_process_group()
    return {
        "world": world,
        "losses": losses,
        "accuracy": right.float().mean().item(),
        "seconds": time.monotonic() - started,
    }


def difference(losses, others):
    """The largest relative difference of two trainings' losses."""
    return max(abs(one - other) / other for one, other in zip(losses, others, strict=True))


def make_lattice(nodes, processes, gpus):
    cloudpickle.register_pickle_by_value(sweep)  # no job can import this folder
    small = CirroBatchExecutor(vcpu=1, memory=1, num_gpus=0, time_limit=600)
    one = {"vcpu": 1 if gpus == 0 else 4 * gpus, "memory": 2, "time_limit": 1800}
    load = ct.electron(sweep.load_data, executor=small)
    several = CirroBatchExecutor(**one, num_gpus=gpus, num_nodes=nodes, processes_per_node=processes)
    alone = CirroBatchExecutor(**one, num_gpus=min(gpus, 1), processes_per_node=1)
    train_together = ct.electron(train, executor=several)
    train_alone = ct.electron(train, executor=alone)

    @ct.lattice
    def data_parallel(epochs, seed):
        data = load(sweep.TEST_SHARE, sweep.VALIDATION_SHARE, seed)
        return train_together(data, epochs, seed), train_alone(data, epochs, seed)

    return data_parallel


def main():
    parser = argparse.ArgumentParser(
        description="Train one network in several processes on several machines.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--nodes", type=int, default=2, help="machines")
    parser.add_argument("--processes", type=int, default=2, help="processes on each; with GPUs one for each of them")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of each machine")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=sweep.SEED)
    options = parser.parse_args()

    console = Console(highlight=False)
    address = f"http://{ct.get_config('dispatcher.address')}:{ct.get_config('dispatcher.port')}"
    processes = options.gpus or options.processes
    lattice = make_lattice(options.nodes, processes, options.gpus)
    dispatch_id = ct.dispatch(lattice)(options.epochs, options.seed)
    page = f"{address}/{dispatch_id}"
    console.print(f"{options.nodes} nodes of {processes} processes; watch them at {page}", soft_wrap=True)
    try:
        result = ct.get_result(dispatch_id, wait=True)
    except KeyboardInterrupt:
        ct.cancel(dispatch_id)
        console.print("interrupted: the dispatch is cancelled, its jobs end")
        return 130
    if str(result.status) != "COMPLETED":
        console.print(f"the dispatch is {result.status}; see {page}", soft_wrap=True)
        return 1
    together, alone = result.result
    table = Table(title="loss of each epoch", title_justify="left", box=None)
    for header in ("epoch", f"{together['world']} processes", "1 process, whole batch"):
        table.add_column(header, justify="right")
    for epoch, losses in enumerate(zip(together["losses"], alone["losses"], strict=True), 1):
        table.add_row(str(epoch), *(f"{loss:.7f}" for loss in losses))
    console.print(table)
    apart = difference(together["losses"], alone["losses"])
    console.print(f"accuracy {together['accuracy']:.2%} and {alone['accuracy']:.2%} on the validation digits")
    console.print(f"largest difference {apart:.1e}, of {TOLERANCE:.0e} that rounding may make")
    console.print(f"the dispatch is {result.status}")
    return 0 if apart <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
