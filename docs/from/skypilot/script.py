"""The same sweep with covalent-cirro, for a script that stays as it is."""

import json
import subprocess
import sys

import covalent as ct

from covalent_cirro import CirroBatchExecutor

on_gpu = CirroBatchExecutor(
    vcpu=2,
    memory=4,
    num_gpus=1,
    retry_attempts=3,
    time_limit=1800,
    local_packages=["train"],
)


@ct.electron(executor=on_gpu)
def run_script(rate):
    """Run train.py, which is sent with the electron; its stderr is the electron's."""
    command = [sys.executable, "-m", "train", str(rate)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


@ct.electron(executor=CirroBatchExecutor(vcpu=1, memory=1))
def best(trained):
    return min(trained, key=lambda each: each["error"])


@ct.lattice
def sweep(rates=(0.03, 0.1, 0.3, 1.0)):
    return best([run_script(rate) for rate in rates])


if __name__ == "__main__":
    dispatch_id = ct.dispatch(sweep)()
    result = ct.get_result(dispatch_id, wait=True)
    print(result.status, result.result)
