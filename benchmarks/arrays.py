"""Maps: one electron whose function is called for each item of a list, as an array job, against electrons."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from figures import MB, Result, at_most, count, prose
from lab import LIGHT, Lab, Load

JOBS = 100
FEW, MANY, MOST = 400, 10_000, 100_000
"""Items of a map, each shared over `JOBS` jobs."""
CALLS_A_JOB, CALLS_MORE = 4.2, 30
"""What a map may cost in AWS calls."""
ELECTRONS = {"ours": 400, "stock": 50}
"""Electrons that are dispatched, to scale their time to `MANY`."""
SHARE = 1 / 50
RESULT_BYTES = 100_000
PEAK_LIMIT_MB = 64.0


def arrays(lab: Lab, say: Callable[[str], None]) -> Result:
    """Seconds, AWS calls and memory of maps, and seconds of as many electrons."""
    lab.prepare(0)
    lab.run("many", "ours", count=2, seconds=0.0)
    lab.run("many", "stock", {"container_image_uri": LIGHT}, count=2, seconds=0.0)
    each_s: dict[str, float] = {}
    for plugin, electrons in ELECTRONS.items():
        began = time.monotonic()
        lab.run(
            "many", plugin, {"container_image_uri": LIGHT} if plugin == "stock" else {}, count=electrons, seconds=0.0
        )
        each_s[plugin] = (time.monotonic() - began) / electrons
        say(f"{electrons} electrons, {plugin}: {each_s[plugin] * electrons:.0f} s")
    found: dict[int, Mapping[str, Mapping[str, int]]] = {}
    taken_s: dict[int, float] = {}
    for items in (FEW, MANY):
        lab.reset_calls()
        began = time.monotonic()
        lab.run("mapped", "ours", {"array_size": JOBS}, count=items, size=0)
        taken_s[items] = time.monotonic() - began
        found[items] = lab.calls()
        say(f"a map of {items:,} items: {taken_s[items]:.1f} s, {count(found[items])} calls")
    grown: dict[int, float] = {}
    for items, size in ((MOST, 0), (MANY, RESULT_BYTES)):
        lab.forget_objects()
        lab.restart_server()
        lab.run("many", "ours", count=2, seconds=0.0)
        loads: list[Load] = []
        with lab.measured(loads):
            lab.run("mapped", "ours", {"array_size": JOBS}, count=items, size=size)
        grown[items] = loads[0].peak_bytes / MB
        say(f"a map of {items:,} results of {size:,} bytes: peak {grown[items]:.1f} MB higher")
    limit_s = MANY * each_s["ours"] * SHARE
    limit_calls = JOBS * CALLS_A_JOB + CALLS_MORE
    return Result(
        rows=[
            at_most(
                f"from dispatch to list, {MANY:,} no-op items: electrons (stock, scaled), and a map in {JOBS} jobs",
                stock=MANY * each_s["stock"],
                ours=taken_s[MANY],
                limit=limit_s,
                unit="s",
                digits=1,
                required=f"at most a fiftieth of {MANY:,} electrons of ours, scaled: {limit_s:.1f} s",
            ),
            *(
                at_most(
                    f"AWS calls for a map of {items:,} items in {JOBS} jobs",
                    stock=None,
                    ours=count(found[items]),
                    limit=limit_calls,
                    required=f"at most {CALLS_A_JOB} for each job and {CALLS_MORE}: {limit_calls:.0f}",
                )
                for items in (FEW, MANY)
            ),
            *(
                at_most(
                    f"growth of the server's peak memory, map with {items:,} {results}",
                    stock=None,
                    ours=grown[items],
                    limit=PEAK_LIMIT_MB,
                    unit="MB",
                    digits=1,
                )
                for items, results in ((MOST, "small results"), (MANY, f"results of {RESULT_BYTES // 1000} kB"))
            ),
        ],
        how=prose(
            f"""
            - **Maps**: from `ct.dispatch` to the completed dispatch, the start of the client's process included. The
            items are whole numbers, which the function returns. Of electrons, {ELECTRONS["ours"]} of ours took
            {each_s["ours"] * ELECTRONS["ours"]:.0f} s and {ELECTRONS["stock"]} of the stock plugin
            {each_s["stock"] * ELECTRONS["stock"]:.0f} s; {MANY:,} would take in proportion, at best. Calls are all
            calls of the server and of the jobs. Memory as above, on a server that has run two electrons before; small
            results are whole numbers, large ones random bytes.
            """
        ),
    )
