"""Tomography in four steps, each of them jobs of AWS Batch: on CPUs, on many CPUs, on one machine, on GPUs.

    make pipeline                                          # on a laptop, with an emulated AWS: no account, no cost
    cirro run examples/pipeline.py:tomography --gpus 1     # with a Covalent server and a stack of your own
    python examples/pipeline.py                            # errors and pictures of the last dispatch
    python examples/pipeline.py --here                     # all of it in this process, without Covalent and AWS

A scan of a phantom has noise, a beam that changes, pixels that count differently, and an axis of rotation that nobody
knows. `preprocess`, `reconstruct` and `refine` are called once for each slice, as the scan itself is: such a map is one
node of the lattice and one array job of AWS Batch, whose jobs share the slices. `calibrate` is one job: all slices have
the same axis.

What the steps compute is in the package `tomo` beside this file, which is sent to the jobs.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request
from pathlib import Path

import covalent as ct
from tomo import steps
from tomo.compare import compare, draw, lines
from tomo.scan import scan

from covalent_cirro import CirroBatchExecutor, mapped

SEED = 13


def machine(**options):
    """What each job needs, and what a step needs besides."""
    return CirroBatchExecutor(**{"vcpu": 1, "memory": 1, "time_limit": 1800, "local_packages": ["tomo"], **options})


measure = mapped("index")(ct.electron(scan, executor=machine(array_size=4)))
preprocess = mapped("raw")(ct.electron(steps.preprocess, executor=machine(array_size=4)))
reconstruct = mapped("sinogram")(ct.electron(steps.reconstruct, executor=machine(memory=2, array_size=8)))
calibrate = ct.electron(steps.calibrate, executor=machine())
judge = ct.electron(compare, executor=machine(memory=2))


def refine_on(gpus):
    """The fourth step. With GPUs its jobs go to the queue for GPUs, without to the one for CPUs."""
    return mapped("sinogram")(ct.electron(steps.refine, executor=machine(memory=2, num_gpus=gpus, array_size=8)))


@ct.lattice
def tomography(slices=24, pixels=128, angles=160, gpus=0, seed=SEED):
    """Scan a phantom of `slices` x `pixels` x `pixels` at `angles` angles, and reconstruct it in four steps."""
    raw = measure(range(slices), slices, pixels, angles, seed)
    sinograms = preprocess(raw)
    reconstructions = reconstruct(sinograms)
    axis = calibrate(reconstructions)
    refined = refine_on(gpus)(sinograms, axis)
    return judge(raw, sinograms, reconstructions, axis, refined, seed)


# --- what comes out ---------------------------------------------------------------------------------------------------


def last_dispatch():
    """The id of the last dispatch of this lattice, from the API that Covalent's own web page uses."""
    address = f"http://{ct.get_config('dispatcher.address')}:{ct.get_config('dispatcher.port')}"
    query = "count=99&sort_by=started_at&sort_direction=DESC&search=tomography"
    with urllib.request.urlopen(f"{address}/api/v1/dispatches/list?{query}", timeout=30) as answer:
        found = [each["dispatch_id"] for each in json.load(answer)["items"] if each["lattice_name"] == "tomography"]
    if not found:
        sys.exit(f"the Covalent server at {address} has no dispatch of tomography; `cirro run` makes one")
    return found[0]


def main():
    parser = argparse.ArgumentParser(description="Print errors and save pictures of a dispatch of the pipeline.")
    parser.add_argument("dispatch", nargs="?", help="id of the dispatch (default: the last one)")
    parser.add_argument("--here", action="store_true", help="compute all of it in this process instead")
    parser.add_argument("--output", type=Path, default="pipeline-output", help="folder (default: %(default)s)")
    options = parser.parse_args()
    if options.here:
        found, dispatch_id = tomography(), ""
    else:
        dispatch_id = options.dispatch or last_dispatch()
        result = ct.get_result(dispatch_id, wait=True)
        if str(result.status) != "COMPLETED":
            sys.exit(f"the dispatch {dispatch_id} is {result.status}:\n{result.error}")
        found = result.result
        print("\n".join([f"dispatch {dispatch_id}", *lines(found)]))
    for path in draw(found, options.output):
        print(f"picture  {path}")
    if dispatch_id:
        print(f"next     cirro report {dispatch_id[:8]}   (machines, time and cost of each step)")


if __name__ == "__main__":
    main()
