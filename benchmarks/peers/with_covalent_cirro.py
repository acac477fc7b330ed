"""covalent-cirro: electrons and maps on the Covalent server of the local stack."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers.peer import Case, Place
from peers.works import WORKS, shared_value

TITLE = "covalent-cirro"
PACKAGES: tuple[str, ...] = ()
SERVER = True
CASES = {
    "tasks": Case("tasks", "20 electrons", 20),
    "map20": Case("map20", "`@mapped`", 20),
    "map400-20": Case("map400", "`@mapped`, `array_size=20`", 20),
    "map400-100": Case("map400", "`@mapped`, `array_size=100`", 100),
    "map400-400": Case("map400", "`@mapped`", 400),
    "shared-stored": Case("shared", "10 electrons, `stored`", 10, {"stored": True}),
    "shared": Case("shared", "10 electrons, the value from an electron before", 10),
    "map10k": Case("map10k", "`@mapped`, `array_size=100`", 100),
    "map100k": Case("map100k", "`@mapped`, `array_size=100`", 100),
}
SET_UP = """\
The local stack's deployment (its CloudFormation stacks) and Covalent server, as `cirro local up --server` makes them.
The call is `ct.dispatch(lattice)(...)` to `ct.get_result(dispatch_id, wait=True, intermediate_outputs=False).result`,
with Covalent's own nodes on its local executor, as by default. The server has run one electron before: its libraries
are imported, the definition is registered. The value that is shared is `stored`, or the output of an electron before,
which Covalent has without a job: as a plain argument of the lattice it would cost Covalent's client some gigabytes. The
driver is the server's process: it runs all dispatches of all users, so its growth is given; the client's process is
beside it."""


def entrypoint(case: Case, place: Place, python: Path) -> list[str]:
    """The command of the jobs says all."""
    return []


def prepare(case: Case, place: Place) -> Callable[[], Any]:
    """Run an electron, so that the server has imported what it needs, and build the lattice."""
    options = {"vcpu": 1, "memory": 2.0}
    result_of(*electrons("cirro", options, 1))
    if case.work.startswith("map"):
        return lambda: result_of(*_map(case, options))
    if case.work == "tasks":
        return lambda: result_of(*electrons("cirro", options))
    if not case.options:
        return lambda: result_of(*sharing_output("cirro", options, output_file(place)))
    data = shared_value(place.inputs)

    def share() -> Any:
        from covalent_cirro import stored

        return result_of(*sharing("cirro", options, stored(data)))

    return share


def _map(case: Case, options: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    import covalent as ct

    from covalent_cirro import mapped

    count = WORKS[case.work].items

    @mapped("index")
    @ct.electron(executor=executor("cirro", {**options, "array_size": case.jobs}))
    def square(index: int) -> int:
        return index * index

    @ct.lattice
    def workflow(count: int) -> Any:
        return square(range(count))

    return workflow, (count,)


# --- also for the stock plugin ----------------------------------------------------------------------------------------


def executor(short_name: str, options: dict[str, Any]) -> Any:
    """An executor of Covalent by its short name."""
    from covalent.executor import _executor_manager

    return _executor_manager.executor_plugins_map[short_name](**options)


def electrons(
    short_name: str, options: dict[str, Any], count: int = WORKS["tasks"].items
) -> tuple[Any, tuple[Any, ...]]:
    """A lattice of electrons, as many as the work ``tasks`` has, and its arguments."""
    import covalent as ct

    @ct.electron(executor=executor(short_name, options))
    def square(index: int) -> int:
        return index * index

    @ct.lattice
    def workflow(count: int) -> Any:
        return [square(index) for index in range(count)]

    return workflow, (count,)


def output_file(place: Place) -> Path:
    """The shared value as the file of an electron's output."""
    from covalent._workflow.transportable_object import TransportableObject

    file = place.folder / "output.tobj"
    file.write_bytes(TransportableObject(shared_value(place.inputs)).serialize())
    return file


def sharing_output(short_name: str, options: dict[str, Any], output: Path) -> tuple[Any, tuple[Any, ...]]:
    """A lattice of electrons that need the output of one before, which is there without a job, and its arguments."""
    import covalent as ct

    checked = _checked(short_name, options)

    @ct.electron(executor=executor("blank", {"output": str(output)}))
    def load() -> bytes:
        return b""

    @ct.lattice
    def workflow(count: int) -> Any:
        data = load()
        return [checked(data, index) for index in range(count)]

    return workflow, (WORKS["shared"].items,)


def sharing(short_name: str, options: dict[str, Any], data: Any) -> tuple[Any, tuple[Any, ...]]:
    """A lattice of electrons that have an argument in common, and its arguments."""
    import covalent as ct

    checked = _checked(short_name, options)

    @ct.lattice
    def workflow(data: Any, count: int) -> Any:
        return [checked(data, index) for index in range(count)]

    return workflow, (data, WORKS["shared"].items)


def _checked(short_name: str, options: dict[str, Any]) -> Any:
    import covalent as ct

    @ct.electron(executor=executor(short_name, options))
    def checked(data: bytes, index: int) -> int:
        import zlib

        return zlib.crc32(data) + index

    return checked


def result_of(workflow: Any, arguments: tuple[Any, ...]) -> Any:
    """Dispatch a lattice, wait, and give its result.

    Raises:
        RuntimeError: The dispatch failed.
    """
    import covalent as ct

    done = ct.get_result(ct.dispatch(workflow)(*arguments), wait=True, intermediate_outputs=False)
    if str(done.status) != "COMPLETED":
        raise RuntimeError(f"dispatch {done.dispatch_id} is {done.status}: {done.error}")
    return done.result
