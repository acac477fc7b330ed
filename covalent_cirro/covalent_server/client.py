"""Dispatches a lattice of a file, with arguments as a user typed them, and asks the Covalent server for its status.

This is the side of the client: a Covalent server has to run. Knows nothing of AWS.
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

from covalent_cirro.contract import tobj
from covalent_cirro.covalent_server import plain_paths
from covalent_cirro.errors import HostError, SettingsError

EXECUTOR = "cirro"
"""Short name of `CirroBatchExecutor` in Covalent."""

COMPLETED, CANCELLED = "COMPLETED", "CANCELLED"
"""Statuses of a dispatch (``covalent/_shared_files/util_classes.py``)."""

STATUS_S = 5.0
"""Seconds in which a server has to answer what the status of a dispatch is; one that is asked again and again."""

ANSWER_S = 60.0
"""Seconds in which a server has to answer anything else: it may have to write thousands of nodes."""

RESULT_BYTES = 300
"""Most bytes of a result that are shown."""

ENDED = frozenset({COMPLETED, "FAILED", CANCELLED, "POSTPROCESSING_FAILED"})
"""Final statuses of a dispatch (``covalent/_shared_files/util_classes.py``)."""


def load(name: str) -> Any:
    """Load the lattice that ``FILE:LATTICE`` names; ``FILE`` alone is enough where the file has one lattice.

    The file is run as an import runs it, without what is under ``if __name__ == "__main__"``. Its functions are pickled
    by value, since no job can import the file.

    Raises:
        SettingsError: There is no such file or lattice; the message names the lattices of the file.
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
        sys.path.insert(0, folder)  # as `python FILE` does, for modules in the same folder
    name = _module_name(path)
    # With this loader, as `python FILE` does, the name of the file need not end with .py.
    spec = importlib.util.spec_from_loader(name, SourceFileLoader(name, str(path.absolute())))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # Before the file is run: a lattice, a sublattice and ct.DepsCall pickle functions when they are made.
    cloudpickle.register_pickle_by_value(module)
    spec.loader.exec_module(module)
    return module


def _module_name(path: Path) -> str:
    """A name for the module of a file that is valid in Python and that no other module has."""
    name = re.sub(r"\W", "_", path.stem)
    name = name if name.isidentifier() and not keyword.iskeyword(name) else f"_{name}"
    while name in sys.modules or name in sys.stdlib_module_names:
        name = f"{name}_"
    return name


def _is_lattice(value: object) -> bool:
    from covalent._workflow.lattice import Lattice

    return isinstance(value, Lattice)


HELP = ("--help", "-h")


def asks_for_help(typed: Sequence[str]) -> bool:
    """Whether the words of the command line after the lattice ask for help, instead of giving arguments."""
    return HELP[0] in typed or list(typed[:1]) == [HELP[1]]


def described(lattice: Any) -> list[tuple[str, str]]:
    """The arguments of a lattice as they are typed, each with its default in words."""
    return [
        (f"--{name}", "needed" if each.default is each.empty else f"unset: {each.default!r}")
        for name, each in _named(_parameters(lattice)).items()
    ]


def _parameters(lattice: Any) -> Mapping[str, inspect.Parameter]:
    # This unpickles what this process pickled a moment ago.
    return inspect.signature(lattice.workflow_function.get_deserialized()).parameters


def _named(parameters: Mapping[str, inspect.Parameter]) -> dict[str, inspect.Parameter]:
    """The parameters that can be given by name."""
    return {
        key: each for key, each in parameters.items() if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    }


def arguments(lattice: Any, typed: Sequence[str]) -> dict[str, Any]:
    """Read keyword arguments of a lattice from ``--name value`` and ``--name=value``.

    A value is read as a literal of Python (a number, a list, a quoted text, ``True``), else as a list or an object of
    JSON, else it is the text itself.

    Args:
        lattice: The lattice.
        typed: The words of the command line after the lattice.

    Raises:
        SettingsError: The lattice has no argument of a name, or an argument without a default is missing.
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
    parameters = _parameters(lattice)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    named = _named(parameters)
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
    # A user can type any text: none of the errors that `literal_eval` documents is a reason to stop.
    with contextlib.suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError), _quietly():
        return ast.literal_eval(value)
    if value.lstrip()[:1] in ("[", "{"):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(value)
    return value


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Hide warnings of Python's compiler, which reads a text that may be no code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def register(lattice: Any, given: Mapping[str, Any], *, reuse_from: str | None = None) -> str:
    """Hand a lattice to the Covalent server, which starts nothing yet: the first steps of ``ct.dispatch``.

    Args:
        lattice: The lattice.
        given: Keyword arguments of the lattice.
        reuse_from: Whole id of an earlier dispatch. It is set on all electrons with our executor, in place of their
            own option.

    Returns:
        The dispatch id.

    Raises:
        HostError: No Covalent server answers.
    """
    from covalent._dispatcher_plugins.local import LocalDispatcher

    with _answered(), tempfile.TemporaryDirectory() as folder:
        built = copy.deepcopy(lattice)
        built.metadata.pop("triggers", None)
        built.build_graph(**given)
        if reuse_from is not None:
            _ask_to_reuse(built.transport_graph, reuse_from)
        manifest = LocalDispatcher.prepare_manifest(built, folder)
        LocalDispatcher.register_manifest(manifest)
        LocalDispatcher.upload_assets(manifest)
    return str(manifest.metadata.dispatch_id)


def start(lattice: Any, dispatch_id: str) -> None:
    """Have the server start a dispatch that is registered, or its triggers if it has some: the last step of
    ``ct.dispatch``.

    Raises:
        HostError: No Covalent server answers. It may have started the dispatch.
    """
    from covalent._dispatcher_plugins.local import LocalDispatcher

    triggers = lattice.metadata.get("triggers")
    if not triggers:
        start_registered(dispatch_id)
        return
    with _may_have_started(dispatch_id), _answered():
        LocalDispatcher.register_triggers(triggers, dispatch_id)


def start_registered(dispatch_id: str) -> None:
    """Have the server start a dispatch that is registered and has no triggers.

    Raises:
        HostError: No Covalent server answers. It may have started the dispatch.
    """
    from covalent._dispatcher_plugins.local import LocalDispatcher

    with _may_have_started(dispatch_id), _answered():
        LocalDispatcher.start(dispatch_id)


@contextlib.contextmanager
def _may_have_started(dispatch_id: str) -> Iterator[None]:
    try:
        yield
    except HostError as error:
        raise HostError(
            f"{error} Dispatch {dispatch_id} may have started: `cirro jobs --dispatch {dispatch_id}` shows its jobs, "
            f"`cirro stop {dispatch_id}` ends them."
        ) from error


def _ask_to_reuse(graph: Any, dispatch_id: str) -> None:
    for _, node in graph._graph.nodes(data=True):
        metadata = node["metadata"]
        if metadata.get("executor") != EXECUTOR:
            continue
        # Covalent stores no data of an executor that was given by its name alone.
        data = metadata.get("executor_data") or {"type": EXECUTOR, "short_name": EXECUTOR}
        attributes = {**data.get("attributes", {}), "reuse_from": dispatch_id}
        metadata["executor_data"] = {**data, "attributes": attributes}


def status(dispatch_id: str) -> str:
    """The status of a dispatch, as Covalent names it.

    Raises:
        HostError: No Covalent server answers within `STATUS_S`, or it does not know the dispatch.
    """
    found = status_if_known(dispatch_id)
    if found is None:
        raise HostError(f"the Covalent server at {_server()} knows no dispatch {dispatch_id}: is it the same server?")
    return found


def status_if_known(dispatch_id: str) -> str | None:
    """The status of a dispatch, as Covalent names it; `None` for a dispatch that the server does not know.

    Raises:
        HostError: No Covalent server answers within `STATUS_S`.
    """
    import requests
    from covalent._api.apiclient import CovalentAPIClient

    # Not ct.get_result, which waits for ever for a server that takes connections only, and prints to stdout.
    with _answered():
        answer = requests.get(
            f"{_server()}/api/v2/dispatches",
            params={"dispatch_id": dispatch_id, "status_only": "True"},
            headers=CovalentAPIClient.get_extra_headers(),
            timeout=STATUS_S,
        )
        answer.raise_for_status()
        found = answer.json()["dispatches"]
    return str(found[0]["status"]) if found else None


def electron_states(dispatch_id: str) -> list[tuple[str, str]]:
    """Name and status of each node of a dispatch that is no value, from the API of Covalent's own page.

    Raises:
        HostError: No Covalent server answers within `STATUS_S`.
    """
    import requests

    with _answered():
        answer = requests.get(f"{_server()}/api/v1/dispatches/{dispatch_id}/graph", timeout=STATUS_S)
        answer.raise_for_status()
        nodes = answer.json()["graph"]["nodes"]
    return [(str(each["name"]), str(each["status"])) for each in nodes if not str(each["name"]).startswith(":")]


def error(dispatch_id: str) -> str:
    """The error of a dispatch that failed: a line for each node that failed, with the first paragraph of its error."""
    from covalent._results_manager import results_manager

    lines = []
    with _answered(), tempfile.TemporaryDirectory() as folder:
        found = results_manager.get_result_manager(dispatch_id, folder)
        for node in found._manifest["lattice"]["transport_graph"]["nodes"]:
            if node["metadata"]["status"] == "FAILED":
                for key in ("error", "stderr"):
                    found.download_node_asset(node["id"], key)
                paths = [results_manager.get_node_asset_path(folder, node["id"], key) for key in ("error", "stderr")]
                lines.append(f"{node['metadata']['name']} (node {node['id']}): {_why(*paths)}")
    return "\n".join(lines) or str(found.result_object.error or "")


def result_text(dispatch_id: str) -> str:
    """The beginning of ``str(result)`` of a dispatch that completed, in one line, as it was when it was pickled.

    Nothing is unpickled: the modules of the result's classes need not be here.

    Raises:
        HostError: No Covalent server answers, or what it has is no result.
    """
    from covalent._results_manager import results_manager

    with tempfile.TemporaryDirectory() as folder:
        with _answered():
            results_manager.get_result_manager(dispatch_id, folder).download_result_asset("result")
        try:
            with open(results_manager.get_result_asset_path(folder, "result"), "rb") as file:
                return " ".join(tobj.read_text(file, tobj.read_header(file), RESULT_BYTES).split())
        except (tobj.TobjError, OSError) as error:
            raise HostError(
                f"the result of dispatch {dispatch_id}, as the Covalent server at {_server()} has it, cannot be read: "
                f"{error}. The results of its electrons are in S3: `cirro run --reuse {dispatch_id}` uses them again."
            ) from error


def result(dispatch_id: str) -> Any:
    """The result of a dispatch that completed. Unpickles what its jobs have made: for the user's own process only.

    Raises:
        HostError: No Covalent server answers.
    """
    from covalent._results_manager import results_manager
    from covalent._workflow.transportable_object import TransportableObject

    with tempfile.TemporaryDirectory() as folder:
        with _answered():
            results_manager.get_result_manager(dispatch_id, folder).download_result_asset("result")
        data = Path(results_manager.get_result_asset_path(folder, "result")).read_bytes()
    return TransportableObject.deserialize(data).get_deserialized()


def _why(error: str, stderr: str) -> str:
    """The first paragraph of the error; the last line of stderr where it is empty, as of Covalent's own executors."""
    files = map(Path, (error, stderr))
    texts = [file.read_text("utf-8", "replace").strip() if file.exists() else "" for file in files]
    return texts[0].partition("\n\n")[0] or texts[1].rpartition("\n")[2] or "Covalent does not say why"


def cancel(dispatch_id: str) -> None:
    """Have the Covalent server cancel a whole dispatch."""
    import covalent as ct

    with _answered():
        ct.cancel(dispatch_id)


def page(dispatch_id: str) -> str:
    """URL of the page of a dispatch in the Covalent UI."""
    return f"{_server()}/{dispatch_id}"


def _server() -> str:
    from covalent._shared_files.config import get_config

    return f"http://{get_config('dispatcher.address')}:{get_config('dispatcher.port')}"


def quoted_folder() -> str:
    """The folder into which `ct.get_result` fetches results, if Covalent cannot use its path; else empty."""
    from covalent._shared_files.config import get_config

    folder = str(get_config("sdk.results_dir"))
    return "" if plain_paths.is_plain(folder) else folder


@contextlib.contextmanager
def _answered() -> Iterator[None]:
    """Give calls to the server an end (Covalent 0.240 sets no timeout), and make their errors ours."""
    import requests
    from requests.adapters import HTTPAdapter

    send = HTTPAdapter.send

    def send_with_end(self: HTTPAdapter, request: requests.PreparedRequest, **given: Any) -> requests.Response:
        return send(self, request, **{**given, "timeout": given.get("timeout") or ANSWER_S})

    HTTPAdapter.send = send_with_end  # type: ignore[assignment, method-assign]
    try:
        yield
    except (requests.ConnectionError, requests.Timeout) as broken:
        found = "no Covalent server answers"
        if isinstance(broken, requests.ReadTimeout):
            found = "the Covalent server takes connections, but does not answer"
        raise HostError(
            f"{found} at {_server()}: `covalent start` starts one, `cirro local up --server` that of a local stack; "
            "`cirro doctor` looks at it."
        ) from broken
    except requests.HTTPError as refused:
        raise HostError(f"the Covalent server refused: {refused}. Its log says more.") from refused
    finally:
        HTTPAdapter.send = send  # type: ignore[method-assign]
