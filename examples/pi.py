"""The smallest dispatch: darts thrown at a square in jobs of one vCPU each, which together know pi.

    python examples/pi.py              # 24 jobs
    python examples/pi.py --gpus 1     # and one on a machine with a GPU, which says what GPU it is

The image needs nothing but the runner, so it tries a new deployment: image, roles, queues, machines, and the way back.
"""

import argparse
import sys

import covalent as ct

from covalent_cirro import CirroBatchExecutor

DARTS = 2_000_000  # a job throws, in about a second
CLOSE_ENOUGH = 0.01


def throw(darts, seed):
    """How many of the darts hit the circle in the square."""
    import random

    chance = random.Random(seed)
    return sum(chance.random() ** 2 + chance.random() ** 2 <= 1 for _ in range(darts))


def gpu_names():
    """The GPUs that the job sees, by NVIDIA's own tool, which comes from the machine and not from the image."""
    import subprocess

    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def make_lattice(gpus):
    """The functions above as electrons: each call is a job."""
    small = CirroBatchExecutor(vcpu=1, memory=1, time_limit=600)
    throw_one = ct.electron(throw, executor=small)
    look = ct.electron(gpu_names, executor=CirroBatchExecutor(vcpu=1, memory=2, num_gpus=gpus, time_limit=600))

    @ct.lattice
    def pi(jobs, darts):
        hits = [throw_one(darts, seed) for seed in range(jobs)]
        return {"hits": hits, "gpus": look() if gpus else []}

    return pi


def main():
    parser = argparse.ArgumentParser(description="Know pi by throwing darts in AWS Batch jobs.")
    parser.add_argument("--jobs", type=int, default=24, help="how many (default: %(default)s)")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs of one more job (default: none, and no such job)")
    options = parser.parse_args()

    dispatch_id = ct.dispatch(make_lattice(options.gpus))(options.jobs, DARTS)
    print(f"{options.jobs} jobs; watch them at {address()}/{dispatch_id}", flush=True)
    result = ct.get_result(dispatch_id, wait=True)
    if str(result.status) != "COMPLETED":
        sys.exit(f"the dispatch is {result.status}:\n{result.error}")
    pi = 4 * sum(result.result["hits"]) / (options.jobs * DARTS)
    print(f"pi is about {pi:.4f}")
    for name in result.result["gpus"]:
        print(f"a job had a GPU: {name}")
    if abs(pi - 3.141593) > CLOSE_ENOUGH:
        sys.exit("which is wrong")


def address():
    """Where the Covalent server and its UI are."""
    return f"http://{ct.get_config('dispatcher.address')}:{ct.get_config('dispatcher.port')}"


if __name__ == "__main__":
    main()
