"""What the measurements of serving say: ratios, verdicts, and the page. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from serving_load import Load

TIMES_THE_TUTORIAL = 1000.0
PART_OF_THE_CONSTANT = 0.5
P99_TIMES_P50 = 3.0
MEMORY_TIMES = 1.3


class Measured(NamedTuple):
    """Medians over the rounds of one run.

    Attributes:
        loads: ``tutorial``, ``root``, ``by_user``, ``constant`` at full speed; ``half`` and ``half constant``, ``root``
            and ``constant`` at half of the rate of ``root``.
        memory_mib: Resident memory of ``tutorial``, ``service`` and ``bare`` after the last round.
        weights_mib: The model's files of tensors.
    """

    loads: Mapping[str, Load]
    memory_mib: Mapping[str, float]
    weights_mib: float


class Row(NamedTuple):
    """A figure, and what is required of it.

    Attributes:
        figure: What is compared.
        value: The figure, with its unit.
        required: The requirement; empty where there is none.
        reached: Whether it is reached; None where nothing is required.
    """

    figure: str
    value: str
    required: str
    reached: bool | None


def rows(measured: Measured) -> list[Row]:
    """The ratios of a run, each with its verdict."""
    loads, memory = measured.loads, measured.memory_mib
    # Of a server with one connection the mean latency says how many answers fit into a second; a count of the few
    # that ended within the measurement would leave out the last one.
    tutorial = 1000 / loads["tutorial"].mean_ms
    times = min(loads["root"].rate, loads["by_user"].rate) / tutorial
    part, part_by_user = (loads[name].rate / loads["constant"].rate for name in ("root", "by_user"))
    tail, tail_of_constant = (loads[name].p99_ms / loads[name].p50_ms for name in ("half", "half constant"))
    allowed = measured.weights_mib + memory["bare"]
    return [
        Row(
            "rate of the service, in rates of the tutorial's app",
            f"{times:,.0f}",
            f"at least {TIMES_THE_TUTORIAL:,.0f}",
            times >= TIMES_THE_TUTORIAL,
        ),
        Row(
            "rate of `GET /`, in rates of `GET /health`, which returns a constant",
            f"{part:.2f}",
            f"at least {PART_OF_THE_CONSTANT:g}",
            part >= PART_OF_THE_CONSTANT,
        ),
        Row(
            "rate of `GET /users/{id}/recommendations`, the same",
            f"{part_by_user:.2f}",
            f"at least {PART_OF_THE_CONSTANT:g}",
            part_by_user >= PART_OF_THE_CONSTANT,
        ),
        Row("p99 at half load, in p50", f"{tail:.2f}", f"at most {P99_TIMES_P50:g}", tail <= P99_TIMES_P50),
        Row("the same of `GET /health` at this rate", f"{tail_of_constant:.2f}", "", None),
        Row(
            "memory of the service, in weights and bare server",
            f"{memory['service'] / allowed:.2f}",
            f"at most {MEMORY_TIMES:g}",
            memory["service"] <= MEMORY_TIMES * allowed,
        ),
    ]


def table(listed: Sequence[Row]) -> str:
    """The rows as a table in Markdown."""
    words = {True: "yes", False: "**no**", None: ""}
    lines = ["| figure | value | required | reached |", "| --- | --- | --- | --- |"]
    return "\n".join([*lines, *(f"| {r.figure} | {r.value} | {r.required} | {words[r.reached]} |" for r in listed)])


def side_by_side(measured: Measured) -> str:
    """The measurements themselves, as a table in Markdown."""
    loads, memory = measured.loads, measured.memory_mib
    lines = [
        "| | answers a second | p50 | p99 | memory |",
        "| --- | --- | --- | --- | --- |",
        _line("the tutorial's app", loads["tutorial"], 1000 / loads["tutorial"].mean_ms, memory["tutorial"]),
        _line("`GET /` of the service", loads["root"], loads["root"].rate, memory["service"]),
        _line("`GET /users/{id}/recommendations`", loads["by_user"], loads["by_user"].rate, memory["service"]),
        _line("`GET /health`, a constant", loads["constant"], loads["constant"].rate, memory["service"]),
        _line("`GET /` of the service at half load", loads["half"], loads["half"].rate, memory["service"]),
        _line("`GET /health` at this rate", loads["half constant"], loads["half constant"].rate, memory["service"]),
        f"| bare server: FastAPI on uvicorn, a constant, no model | | | | {memory['bare']:.0f} MiB |",
        f"| tensors of the model | | | | {measured.weights_mib:.1f} MiB |",
    ]
    return "\n".join(lines)


def _line(name: str, load: Load, rate: float, memory_mib: float) -> str:
    shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.3f}"
    return f"| {name} | {shown} | {_ms(load.p50_ms)} | {_ms(load.p99_ms)} | {memory_mib:,.0f} MiB |"


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.2f} ms"


def page(measured: Measured, facts: Mapping[str, str]) -> str:
    """The page, in Markdown."""
    about = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return f"""# Serving: a tutorial's Flask app and the service

Made by `make bench-serving`, in one run on one machine: the servers are measured one after the other in each round, and
figures are medians over the rounds. The model has 6,040 users, 3,706 items, k = 18 and a million ratings, as many as
MovieLens 1M.

{table(rows(measured))}

{side_by_side(measured)}

| | |
| --- | --- |
{about}

## How it is measured

- The tutorial's app (`serving_tutorial.py`) is the Flask app of a tutorial on serving with ECS, written anew: its
  class, its loop over the pairs of all users and items, its call of torch for each pair, its sort by title and its
  development server are kept. Its download at the start is left out, and titles come from a dict instead of pandas,
  which is faster. Its rate is one divided by its mean latency.
- The service is one process, as in its image. It answers with ten items.
- Load comes from wrk on the same machine, for random users: one connection for the tutorial's app, which computes one
  answer at a time, 16 for the service.
- At half load, requests come at a constant rate, half of the highest that the service reached before the rounds, over
  16 connections, of which whichever is free sends the next request. wrk's timers have whole milliseconds, so that a few
  requests come in the same moment. Server and wrk have real-time priority here: without it, p99 is that of the other
  programs of the machine.
- `GET /health` is an ordinary endpoint of FastAPI in the same process, with the same metrics and header. The endpoints
  of recommendations read their query themselves, which takes less time than FastAPI's way.
- Memory is the resident memory of the process after the last round. The bare server has the service's settings of
  uvicorn, and neither NumPy nor a model. All run with `PYTHONOPTIMIZE=2` (no docstrings), as in the service's image.
"""
