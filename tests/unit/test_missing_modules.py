"""Which modules an electron is told to lack, by pickles, sources and hooks. No S3, no server, no image."""

from __future__ import annotations

import io
import json
import logging
import platform
import sys
import textwrap
import types
import zipfile
from pathlib import Path
from typing import Any

import cloudpickle
import covalent as ct
import pytest

from covalent_cirro.contract.protocol import Call, Package, Task
from covalent_cirro.contract.references import Inline
from covalent_cirro.covalent_server.assets import Group, Node
from covalent_cirro.electron import imported_modules, missing_modules
from covalent_cirro.jobs import image_modules
from covalent_cirro.settings import Settings

PYTHON = platform.python_version()
IMAGE = frozenset({"awscrt", "cloudpickle", "covalent_cirro", "numpy", "pip"})


@pytest.fixture(autouse=True)
def own_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package ``lab`` that can be imported here, with a module and a function."""
    lab, models = types.ModuleType("lab"), types.ModuleType("lab.models")
    exec("def fit(): pass", vars(models))
    vars(lab)["models"] = models
    monkeypatch.setitem(sys.modules, "lab", lab)
    monkeypatch.setitem(sys.modules, "lab.models", models)


def pickled(source: str) -> bytes:
    """The pickle of a script's function ``electron``, as a client makes it: by value."""
    script = types.ModuleType("__main__")
    exec(compile(textwrap.dedent(source), "/a/script.py", "exec"), vars(script))
    return cloudpickle.dumps(vars(script)["electron"])


def imported(source: str, python: str = PYTHON) -> frozenset[str]:
    """Top-level modules that the function of a script needs."""
    return imported_modules.top_level(imported_modules.in_pickle(pickled(source), python))


# --- functions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "needs"),
    [
        pytest.param("import lab\ndef electron(): return lab.models", {"lab"}, id="a module of the script"),
        pytest.param("import lab\ndef electron(): return 1", set(), id="one that the function does not use"),
        pytest.param("from lab.models import fit\ndef electron(): return fit()", {"lab"}, id="a function of a package"),
        pytest.param("from lab.models import fit as electron", {"lab"}, id="an electron that is one"),
        pytest.param("def electron():\n import einops.layers", {"einops"}, id="an import in the function"),
        pytest.param("def electron():\n from einops import rearrange", {"einops"}, id="a from import"),
        pytest.param("def helper():\n import einops\ndef electron(): helper()", {"einops"}, id="in a helper"),
        pytest.param("class Net:\n def f(self):\n  import einops\ndef electron(): Net().f()", {"einops"}, id="a class"),
        pytest.param("import json, os.path\ndef electron(): return json, os", set(), id="Python's own"),
        pytest.param("import covalent as ct\ndef electron(): return ct", set(), id="Covalent"),
    ],
)  # fmt: skip
def test_what_a_function_imports(source: str, needs: set[str]) -> None:
    """By what its pickle names, and by its bytecode."""
    assert imported(source) == needs


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("try:\n  import einops\n except ImportError:\n  pass", id="it catches the error"),
        pytest.param("try:\n  import einops\n except Exception as error:\n  print(error)", id="any error"),
        pytest.param("import sys\n sys.path.append('/data')\n import einops", id="it changes the path"),
        pytest.param("import subprocess\n subprocess.run('pip install einops'.split())\n import einops", id="pip"),
        pytest.param("from importlib.util import find_spec\n if find_spec('einops'):\n  import einops", id="it looks"),
        pytest.param("from . import einops", id="a relative import"),
    ],
)
def test_no_alarm_where_a_function_sees_to_it_itself(body: str) -> None:
    """A false alarm is worse than a missing one."""
    assert imported(f"def electron():\n {body}\n") == set()


def test_bytecode_of_another_python_is_not_read() -> None:
    """Its numbers mean something else; what the pickle itself names counts."""
    source = "import lab\ndef electron():\n import einops\n return lab"
    assert imported(source, python="3.9.1") == {"lab"}


def test_a_function_with_many_names_is_read() -> None:
    """Numbers above 255 take two instructions."""
    names = "\n ".join(f"x.name{number}" for number in range(300))
    assert imported(f"def electron(x):\n {names}\n import einops\n") == {"einops"}


@pytest.mark.parametrize("data", [b"", b"no pickle", pickled("def electron(): pass")[:-20]])
def test_what_is_no_pickle_needs_nothing(data: bytes) -> None:
    """The runner will say what is wrong with it."""
    assert imported_modules.in_pickle(data, PYTHON) == set()


# --- packages ---------------------------------------------------------------------------------------------------------


def archive(files: dict[str, str]) -> bytes:
    """The archive of a package with these files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as zipped:
        for path, content in files.items():
            zipped.writestr(path, content)
    return out.getvalue()


LAB = {
    "lab/__init__.py": "",
    "lab/models.py": "import torch\nfrom .layers import Dense\n",
    "lab/layers.py": "import einops\nfrom lab import helpers\n",
    "lab/helpers.py": "import yaml\nimport json\n",
    "lab/plots.py": "import matplotlib\n",
    "lab/careful.py": "try:\n import w\nexcept ImportError:\n w = None\nif True:\n import x\ndef f(): import y\n",
}


@pytest.mark.parametrize(
    ("names", "needs"),
    [
        pytest.param({"lab.models"}, {"torch", "einops", "yaml"}, id="through its modules"),
        pytest.param({"lab.helpers"}, {"yaml"}, id="one of them"),
        pytest.param({"lab"}, set(), id="the package alone"),
        pytest.param({"lab.careful"}, set(), id="what may not be imported"),
        pytest.param({"lab.plots.figure", "numpy"}, {"matplotlib", "numpy"}, id="an object; another package"),
    ],
)
def test_what_packages_import(names: set[str], needs: set[str]) -> None:
    """By the modules that the function reaches, and what they import as soon as they are imported themselves."""
    assert imported_modules.through_packages([archive(LAB)], names) == needs


def test_modules_of_a_folder_that_is_no_package_are_found() -> None:
    """As the runner has them on the path."""
    files = {"src/train.py": "import helper\nimport torch\n", "src/helper.py": ""}
    assert imported_modules.through_packages([archive(files)], {"train"}) == {"torch"}
    assert imported_modules.through_packages([archive({"data/x.csv": ""})], {"data"}) == set()


def test_what_cannot_be_read_needs_nothing() -> None:
    """A source with an error, an archive that is none, one that is too large."""
    assert imported_modules.through_packages([archive({"lab/__init__.py": "import ("})], {"lab"}) == set()
    assert imported_modules.through_packages([b"none"], {"lab", "torch"}) == set()
    large = bytes(imported_modules.ARCHIVE_BYTES + 1)
    assert imported_modules.through_packages([large], {"lab", "torch"}) == set()


# --- an electron ------------------------------------------------------------------------------------------------------

SOURCE = "import lab\ndef electron():\n import einops\n import numpy\n return lab"


async def missing(
    folder: Path,
    *,
    source: str = SOURCE,
    hooks: dict[str, Any] | None = None,
    packages: dict[str, str] | None = None,
    image: frozenset[str] | None = IMAGE,
    dispatch_id: str = "d",
) -> tuple[str, ...]:
    """What an electron with these hooks and local packages lacks in an image."""
    path = folder / "function.tobj"
    script = types.ModuleType("__main__")
    exec(compile(source, "/a/script.py", "exec"), vars(script))
    path.write_bytes(ct.TransportableObject(vars(script)["electron"]).serialize())
    node = Node(0, 0, "train", {"function": str(path)})
    group = Group(nodes={0: node}, inputs={}, lattice="", python=PYTHON, covalent="", parameters={})
    call = Call(
        call_id="0" * 20,
        dispatch_id=dispatch_id,
        python=PYTHON,
        cloudpickle="3.1.2",
        covalent="0.240.0",
        tasks=(
            Task(
                node_id=0,
                name="train",
                function=Inline(pickled(source)),
                hooks=None if hooks is None else Inline(json.dumps(hooks).encode()),
                args=(),
                kwargs={},
            ),
        ),
        packages=(Package("lab", Inline(archive(packages))),) if packages else (),
    )
    settings = Settings(local_packages=("lab",) if packages else ())
    return await missing_modules.find(settings, group, call, image)


def pip(*packages: str) -> dict[str, Any]:
    """The hooks of an electron with ``deps_pip``, as Covalent stores them."""
    return {"deps": {"pip": ct.DepsPip(packages=list(packages)).to_dict()}, "call_before": [], "call_after": []}


async def test_an_electron_is_told_what_it_lacks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once for its name in a dispatch, with the ways to ship it."""
    with caplog.at_level(logging.WARNING, missing_modules.__name__):
        for _ in range(3):
            assert await missing(tmp_path, dispatch_id="once") == ("einops", "lab")
    [said] = [record.getMessage() for record in caplog.records]
    assert said.startswith("Electron 'train' of dispatch once: it imports einops, lab, which the job's image")
    assert 'local_packages=["einops", "lab"]' in said
    assert "deps_pip" in said
    assert "cirro image push --requirements" in said


async def test_local_packages_count_with_what_they_import(tmp_path: Path) -> None:
    """A package that is shipped is there; what it imports has to be shipped as well."""
    assert await missing(tmp_path, packages={"lab/__init__.py": "import torch, numpy\n"}) == ("einops", "torch")


async def test_nothing_is_missed_in_an_image_that_does_not_say_what_it_has(tmp_path: Path) -> None:
    """One of somebody else, one that was built on ours by another tool, a process instead of a container."""
    assert await missing(tmp_path, image=None) == ()


@pytest.mark.parametrize(
    ("hooks", "lacks"),
    [
        pytest.param({}, ("lab", "yaml"), id="none"),
        pytest.param(pip("PyYAML>=5"), ("lab",), id="deps_pip under another name"),
        pytest.param(pip("pyyaml", "# why", "typing_extensions[x] ; python_version > '3'"), ("lab",), id="several"),
        pytest.param(pip("nobody-has-this-one"), (), id="a distribution that is not known here"),
        pytest.param(pip("https://example.org/lab.zip"), (), id="a URL"),
        pytest.param(pip("-r more.txt"), (), id="an option"),
        pytest.param({"deps": {"bash": {"attributes": {"commands": ["make install"]}}}}, (), id="deps_bash"),
        pytest.param({"deps": {}, "call_before": [{}]}, (), id="call_before"),
    ],
)  # fmt: skip
async def test_what_hooks_install_is_not_missed(tmp_path: Path, hooks: dict[str, Any], lacks: tuple[str, ...]) -> None:
    """Where they may install anything, nothing is said."""
    assert await missing(tmp_path, source="import lab, yaml\ndef electron(): return lab, yaml", hooks=hooks) == lacks


async def test_requirements_of_a_distribution_are_installed_with_it(tmp_path: Path) -> None:
    """Boto3 brings botocore, and botocore brings dateutil."""
    source = "def electron():\n import dateutil, botocore, lab\n"
    assert await missing(tmp_path, source=source, hooks=pip("boto3")) == ("lab",)


async def test_a_check_that_fails_fails_no_electron(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said in the log; the job is submitted."""
    with caplog.at_level(logging.WARNING, missing_modules.__name__):
        assert await missing(tmp_path, source="def electron(): 'broken'", hooks={"deps": 3}) == ()
    assert "Electron 'train' is not checked for missing modules: AttributeError" in caplog.text


def test_a_bounded_number_of_findings_is_kept() -> None:
    """The oldest one is dropped."""
    cache: dict[Any, Any] = {}
    for number in range(missing_modules.KEPT + 5):
        missing_modules._keep(cache, number, ())
    assert len(cache) == missing_modules.KEPT
    assert 0 not in cache


# --- what is kept and shown -------------------------------------------------------------------------------------------


def test_a_label_holds_for_its_layers_only() -> None:
    """An image that is built on another inherits the label, and may have more."""
    label = image_modules.dump({"torch", "numpy"}, ["a", "b"])
    assert image_modules.load(label, ["a", "b"]) == {"numpy", "torch"}
    assert image_modules.load(label, ["a", "b", "c"]) is None
    assert image_modules.load(label, ["b", "a"]) is None
    assert image_modules.load("", ["a"]) is None
    assert image_modules.dump({"torch"}, []) == ""
    assert image_modules.load("", []) is None


def test_a_parameter_has_room_for_some_modules() -> None:
    """Whoever may submit jobs can write anything there."""
    many = [f"module{number}" for number in range(100)]
    text = image_modules.dump_parameter([*many, "x" * 1000])
    assert len(text) < image_modules.PARAMETER_CHARS
    assert image_modules.load_parameter(text) == tuple(many[: image_modules.MOST])
    assert image_modules.load_parameter("lab <b> \x1b[31m a-b") == ("lab",)


def test_electrons_of_one_name_have_one_warning() -> None:
    """And those that lack nothing have none."""
    lines = image_modules.warning_lines([("train", ("lab",)), ("load", ()), ("train", ("lab",)), ("plot", ("lab",))])
    assert [line.partition(": ")[0] for line in lines] == ["train", "plot"]
    assert "a package of an index" in lines[0]
