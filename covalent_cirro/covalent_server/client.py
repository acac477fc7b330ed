"""A lattice from a file, dispatched with arguments as they were typed, and what Covalent's server says of it then.

A client's side only: it needs a Covalent server that runs, and knows nothing of AWS.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib.util
import inspect
import json
import keyword
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from covalent_cirro.covalent_server import plain_paths
from covalent_cirro.errors import HostError, SettingsError

EXECUTOR = "cirro"
"""The short name that Covalent knows our executor by."""

COMPLETED = "COMPLETED"
ENDED = frozenset({COMPLETED, "FAILED", "CANCELLED", "POSTPROCESSING_FAILED"})
"""Statuses of a dispatch that do not change any more (``covalent/_shared_files/util_classes.py``)."""


def load(name: str) -> Any:
    """The lattice that ``FILE:LATTICE`` names; ``FILE`` alone where the file has one.

    The file is run as it is by an import, so what stands under ``if __name__ == "__main__"`` is not. Its functions
    travel with the electrons: no job can import it.

    Raises:
        SettingsError: There is no such file or lattice; those that there are, are named.
    """
    file, _, wanted = name.rpartition(":") if ":" in name and not Path(name).exists() else (name, "", "")
    path = Path(file)
    if not path.is_file():
        raise SettingsError(f"there is no file {file!r}. A lattice is named as FILE:LATTICE, such as sweep.py:sweep.")
    found = {key: value for key, value in vars(_imported(path)).items() if _is_lattice(value)}
    if wanted in found:
        return found[wanted]
    if not wanted and len(found) == 1:
        return next(iter(found.values()))
    there = ", ".join(f"{file}:{each}" for each in found) or "none (a lattice inside a function is not found)"
    raise SettingsError(
        f"{file} has no lattice {wanted!r}: there is {there}."
        if wanted
        else f"which lattice of {file}? There is {there}."
    )


def _imported(path: Path) -> ModuleType:
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as `python FILE` does, for the modules beside it
    name = _module_name(path)
    # By its loader: `python FILE` takes any name, also one that does not end with .py.
    spec = importlib.util.spec_from_loader(name, SourceFileLoader(name, str(path.absolute())))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # Before it is run: a lattice, a sublattice and ct.DepsCall pickle functions when they are made.
    cloudpickle.register_pickle_by_value(module)
    spec.loader.exec_module(module)
    return module


def _module_name(path: Path) -> str:
    """A name for the module of a file: a name in Python, and nobody else's."""
    name = re.sub(r"\W", "_", path.stem)
    name = name if name.isidentifier() and not keyword.iskeyword(name) else f"_{name}"
    while name in sys.modules or name in sys.stdlib_module_names:
        name = f"{name}_"
    return name


def _is_lattice(value: object) -> bool:
    from covalent._workflow.lattice import Lattice

    return isinstance(value, Lattice)


def arguments(lattice: Any, typed: Sequence[str]) -> dict[str, Any]:
    """A lattice's keyword arguments from ``--name value`` and ``--name=value``.

    A value is what Python reads it as (a number, a list, a quoted text, ``True``), or JSON if it is a list or an object
    of that, and else the text itself.

    Raises:
        SettingsError: A name that the lattice has not, or one that it needs and was not given; all are named.
    """
    given: dict[str, Any] = {}
    words = iter(typed)
    for word in words:
        if not word.startswith("--"):
            raise SettingsError(f"{word!r} is not understood: arguments of the lattice are given as --NAME VALUE.")
        name, equals, value = word[2:].partition("=")
        if not equals:
            following = next(words, None)
            if following is None:
                raise SettingsError(f"--{name} has no value.")
            if following.startswith("--"):
                raise SettingsError(
                    f"--{name} has no value: {following} after it looks like another argument. If it is the value, "
                    f"write --{name}={following}."
                )
            value = following
        given[name.replace("-", "_")] = _read(value)
    # Pickled by this process a moment ago: it is the client's own function.
    parameters = inspect.signature(lattice.workflow_function.get_deserialized()).parameters
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    named = {
        key: each for key, each in parameters.items() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    }
    unknown = [] if takes_any else [name for name in given if name not in named]
    missing = [name for name, each in named.items() if each.default is each.empty and name not in given]
    if unknown or missing:
        parts = [f"has no argument {', '.join(unknown)}"] if unknown else []
        parts += [f"needs {', '.join(f'--{name}' for name in missing)}"] if missing else []
        takes = ", ".join(
            f"--{key}" + ("" if each.default is each.empty else f" ({each.default!r})") for key, each in named.items()
        )
        raise SettingsError(f"the lattice {' and '.join(parts)}. It takes: {takes or 'nothing'}.")
    return given


def _read(value: str) -> Any:
    # What a person typed may be anything: all that `literal_eval` says it raises is no reason to stop.
    with contextlib.suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError), _quietly():
        return ast.literal_eval(value)
    if value.lstrip()[:1] in ("[", "{"):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without warnings of how Python's compiler reads a text that was not meant for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def dispatch(lattice: Any, given: Mapping[str, Any], *, reuse_from: str | None = None) -> str:
    """Hand a lattice to the Covalent server; its dispatch id.

    Args:
        lattice: The lattice.
        given: Its arguments.
        reuse_from: Whole id of an earlier dispatch: set for all electrons with our executor, whatever they have.

    Raises:
        HostError: No server answers.
    """
    import covalent as ct

    with _answered():
        if reuse_from is None:
            return str(ct.dispatch(lattice)(**given))
        from covalent._dispatcher_plugins.local import LocalDispatcher

        # What ct.dispatch does, with a look at the graph in between: electrons may be anywhere in the file.
        built = copy.deepcopy(lattice)
        built.build_graph(**given)
        _ask_to_reuse(built.transport_graph, reuse_from)
        with tempfile.TemporaryDirectory() as folder:
            manifest = LocalDispatcher.prepare_manifest(built, folder)
            LocalDispatcher.register_manifest(manifest)
            LocalDispatcher.upload_assets(manifest)
        return str(LocalDispatcher.start(manifest.metadata.dispatch_id))


def _ask_to_reuse(graph: Any, dispatch_id: str) -> None:
    for _, node in graph._graph.nodes(data=True):
        metadata = node["metadata"]
        if metadata.get("executor") != EXECUTOR:
            continue
        # Of an executor that was given by its name alone, Covalent keeps no data: the server's own settings hold.
        data = metadata.get("executor_data") or {"type": EXECUTOR, "short_name": EXECUTOR}
        attributes = {**data.get("attributes", {}), "reuse_from": dispatch_id}
        metadata["executor_data"] = {**data, "attributes": attributes}


def status(dispatch_id: str) -> str:
    """The dispatch's status in Covalent's word.

    Raises:
        HostError: No server answers.
    """
    import covalent as ct

    with _answered():
        return str(ct.get_result(dispatch_id, wait=False, status_only=True)["status"])


def error(dispatch_id: str) -> str:
    """What Covalent says of a dispatch that failed: its nodes that failed, each with the beginning of why."""
    from covalent._results_manager import results_manager

    told = []
    with _answered(), tempfile.TemporaryDirectory() as folder:
        found = results_manager.get_result_manager(dispatch_id, folder)
        for node in found._manifest["lattice"]["transport_graph"]["nodes"]:
            if node["metadata"]["status"] == "FAILED":
                for key in ("error", "stderr"):
                    found.download_node_asset(node["id"], key)
                paths = [results_manager.get_node_asset_path(folder, node["id"], key) for key in ("error", "stderr")]
                told.append(f"{node['metadata']['name']} (node {node['id']}): {_why(*paths)}")
    return "\n".join(told) or str(found.result_object.error or "")


def _why(error: str, stderr: str) -> str:
    """The first paragraph of an error; where Covalent has none (its own executors write none), the last words."""
    files = map(Path, (error, stderr))
    texts = [file.read_text("utf-8", "replace").strip() if file.exists() else "" for file in files]
    return texts[0].partition("\n\n")[0] or texts[1].rpartition("\n")[2] or "Covalent does not say why"


def cancel(dispatch_id: str) -> None:
    """Have the server cancel all of a dispatch."""
    import covalent as ct

    with _answered():
        ct.cancel(dispatch_id)


def page(dispatch_id: str) -> str:
    """Where the Covalent UI shows a dispatch."""
    return f"{_server()}/{dispatch_id}"


def _server() -> str:
    from covalent._shared_files.config import get_config

    return f"http://{get_config('dispatcher.address')}:{get_config('dispatcher.port')}"


def quoted_folder() -> str:
    """The folder that `ct.get_result` fetches results into, if Covalent cannot use its path; else empty."""
    from covalent._shared_files.config import get_config

    folder = str(get_config("sdk.results_dir"))
    return "" if plain_paths.is_plain(folder) else folder


@contextlib.contextmanager
def _answered() -> Iterator[None]:
    import requests

    try:
        yield
    except requests.ConnectionError as broken:
        raise HostError(
            f"no Covalent server answers at {_server()}: `covalent start` starts one, `cirro doctor` looks at it."
        ) from broken
