"""Which files of local packages are part of an electron's work, and which edits of them are none. No S3, no server."""

from __future__ import annotations

import io
import textwrap
import types
import zipfile
from collections.abc import Iterable
from typing import Any

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covalent_cirro.electron.reuse import package_files
from covalent_cirro.electron.reuse.package_files import PackedFile, reached, read_archives
from covalent_cirro.electron.reuse.pickles import describe


def archive(files: dict[str, str | bytes]) -> bytes:
    """The archive of a package with these files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as zipped:
        for path, content in files.items():
            zipped.writestr(zipfile.ZipInfo(path), content)
    return out.getvalue()


def read(files: dict[str, str | bytes]) -> dict[str, PackedFile]:
    """What is read of a package."""
    found = read_archives([archive(files)])
    assert found is not None
    return dict(found)


def counted(files: dict[str, str | bytes], *texts: str) -> set[str]:
    """The files of a package that count for a call with these texts in its pickles."""
    return set(reached(read(files), texts))


def texts_of(source: str, package: str = "") -> frozenset[str]:
    """The texts in the pickle of a script's function ``electron``; the modules that it imports need not exist."""
    module = types.ModuleType("script")
    vars(module)["__package__"] = package
    exec(compile(textwrap.dedent(source), "/a/script.py", "exec"), vars(module))
    texts = describe(cloudpickle.dumps(vars(module)["electron"])).texts
    assert texts is not None
    return texts


# --- which files count ------------------------------------------------------------------------------------------------

LAB: dict[str, str | bytes] = {
    "lab/__init__.py": "",
    "lab/train.py": "from .models import Net\nfrom lab import losses\n",
    "lab/models.py": "import numpy\nfrom lab.layers.dense import Dense\n",
    "lab/losses.py": "",
    "lab/layers/__init__.py": "",
    "lab/layers/dense.py": "from .. import base\n",
    "lab/layers/sparse.py": "",
    "lab/base.py": "",
    "lab/plots.py": "import lab.models\n",
}
TRAIN = {"lab/__init__.py", "lab/train.py", "lab/models.py", "lab/losses.py", "lab/base.py"} | {
    "lab/layers/__init__.py",
    "lab/layers/dense.py",
}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("import lab.train; return lab.train.run(x)", TRAIN),
        ("from lab import train; return train.run(x)", TRAIN),
        ("from lab.train import run; return run(x)", TRAIN),
        ("from lab.layers import sparse", {"lab/__init__.py", "lab/layers/__init__.py", "lab/layers/sparse.py"}),
        ("import lab", {"lab/__init__.py"}),
        ("return x.train()", set()),
        ("import labour", set()),
        ("import importlib; return importlib.import_module('lab.' + x)", set(LAB)),
        ("return __import__(x)", set(LAB)),
        ("exec(x)", set(LAB)),
        ("import sys; sys.path.append(x)", set(LAB)),
        ("import pickle; return pickle.load(x)", set(LAB)),
        ("import torch; return torch.load(x)", set(LAB)),
        ("import subprocess; subprocess.run(['python', '-m', x])", set(LAB)),
        ("import subprocess; subprocess.run(['python', 'lab/plots.py'])", set(LAB)),
        ("return run_in_a_shell('python -c \"from lab import plots\"')", set(LAB)),
        ("return make('lab.plots.Plot')", {"lab/plots.py", "lab/models.py", "lab/base.py", "lab/__init__.py"}
         | {"lab/layers/__init__.py", "lab/layers/dense.py"}),
    ],
)  # fmt: skip
def test_modules_that_a_function_reaches_count(body: str, expected: set[str]) -> None:
    """And all modules, where it cannot be told which ones it imports."""
    assert counted(LAB, *texts_of(f"def electron(x):\n    {body}\n")) == expected


def test_modules_whose_objects_an_input_has_count() -> None:
    """Unpickling imports them."""
    lab, models = types.ModuleType("lab"), types.ModuleType("lab.models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "lab", lab)
        patch.setitem(__import__("sys").modules, "lab.models", models)
        exec("class Net:\n    pass", vars(models))
        texts = describe(cloudpickle.dumps([vars(models)["Net"]()])).texts
        by_module = describe(cloudpickle.dumps(models)).texts
    assert texts is not None
    assert by_module is not None
    assert {"lab/models.py", "lab/layers/dense.py"} <= counted(LAB, *texts) == counted(LAB, *by_module) < set(LAB)


def test_a_function_of_the_package_itself_imports_relatively() -> None:
    """A decorated electron of a package is pickled by value."""
    source = "def electron(x):\n    from .layers import sparse\n    from . import plots\n"
    assert {"lab/layers/sparse.py", "lab/plots.py", "lab/models.py"} <= counted(LAB, *texts_of(source, "lab"))
    up = "def electron(x):\n    from ..plots import Plot\n"
    assert "lab/plots.py" in counted(LAB, *texts_of(up, "lab.layers"))


def test_all_count_where_the_pickles_are_not_known() -> None:
    """As of a large input."""
    assert set(reached(read(LAB), None)) == set(LAB)


@pytest.mark.parametrize(
    "source",
    [
        "import importlib\nimportlib.import_module(name)",
        "from importlib import import_module as load",
        "def f(name):\n    return __import__(name)",
        "import pkgutil",
        "exec(text)",
        "import pickle",
        "import sys\nsys.path.insert(0, folder)",
        "from sys import path",
        "import torch as t\nt.load(path)",
        "from torch import load",
        "import torch\ntorch.load(path, weights_only=False)",
        "environment = {'PYTHONPATH': folder}",
        "import torch\ntorch.load(path)",
        "import numpy\nnumpy.load(path, allow_pickle=True)",
        "import subprocess\nsubprocess.run(['python', '-m', name])",
        "SCRIPT = 'worker.py'",
        "CODE = 'import lab.plots'",
        "this is no Python",
        "x = " + "(" * 300 + ")" * 300,
    ],
)
def test_a_module_that_may_import_anything_makes_all_count(source: str) -> None:
    """If it is reached; and if it is not, it makes no difference."""
    files = LAB | {"lab/losses.py": source}
    assert counted(files, "lab.train") == set(files)
    assert counted(files, "lab.plots") < set(files)


def test_what_only_sounds_like_an_import_is_none() -> None:
    """A docstring, a method ``eval`` or ``load``, and a comment."""
    source = '''
        """Use it so: import lab.plots, or plots.py."""
        import json, sys, os.path, torch
        from os import path
        json.load(os.path)
        torch.load(file, weights_only=True)
        net.eval()  # import_module
    '''
    assert counted(LAB | {"lab/losses.py": textwrap.dedent(source)}, "lab.train") == TRAIN


@pytest.mark.parametrize(
    ("source", "added"),
    [
        ("from lab.layers import *", {"lab/layers/__init__.py", "lab/layers/sparse.py", "lab/layers/dense.py"}),
        ("REGISTRY = {'plot': 'lab.plots.Plot'}", {"lab/plots.py"}),
        ("def f():\n    if x:\n        from .plots import Plot", {"lab/plots.py"}),
        ("try:\n    import lab.layers.sparse as s\nexcept ImportError:\n    pass", {"lab/layers/sparse.py"}),
    ],
)
def test_imports_are_found_wherever_they_are(source: str, added: set[str]) -> None:
    """In functions, conditions, and as texts."""
    found = counted(LAB | {"lab/losses.py": source}, "lab.losses")
    assert {"lab/__init__.py", "lab/losses.py"} | added <= found < set(LAB)


def test_a_package_that_imports_its_modules_when_they_are_used_reaches_those_that_it_names() -> None:
    """With a library for lazy imports."""
    init = "import lazy_loader\n__getattr__, __dir__, _ = lazy_loader.attach(__name__, submodules=['losses'])"
    assert counted(LAB | {"lab/__init__.py": init}, "lab") == {"lab/__init__.py", "lab/losses.py"}


def test_files_that_are_no_sources_always_count() -> None:
    """Also the modules that they name, as the configuration of a library that makes objects does."""
    files = LAB | {"lab/net.yaml": "_target_: lab.losses.Loss", "lab/my-script.py": "x = 1", "lab/table.csv": "a.b"}
    data = {"lab/net.yaml", "lab/my-script.py", "lab/table.csv"}
    assert counted(files) == data | {"lab/__init__.py", "lab/losses.py"}


def test_a_compiled_module_may_import_anything() -> None:
    """If it is reached. It always counts itself: ctypes reads it without an import."""
    files = LAB | {"lab/fast.cpython-311-x86_64-linux-gnu.so": b"\0"}
    assert counted(files, "lab.fast") == set(files)
    assert counted(files, "lab.losses") == {"lab/__init__.py", "lab/losses.py", *(files.keys() - LAB.keys())}


def test_modules_of_a_folder_that_is_no_package_have_two_names() -> None:
    """The runner puts such a folder on ``sys.path``."""
    files: dict[str, str | bytes] = {"src/helpers.py": "import more", "src/more.py": "", "src/other.py": ""}
    assert counted(files, *texts_of("def electron():\n    import helpers\n")) == {"src/helpers.py", "src/more.py"}
    assert counted(files, *texts_of("def electron():\n    import src.other\n")) == {"src/other.py"}


def test_packages_reach_one_another() -> None:
    """All packages of an electron are on the same ``sys.path``."""
    found = read_archives([archive({"lab.py": "import tools.one"}), archive({"tools/one.py": "", "tools/two.py": ""})])
    assert found is not None
    assert set(reached(found, ["lab"])) == {"lab.py", "tools/one.py"}


NAMES = [f"m{number}" for number in range(6)]
FORMS = ["import lab.{}", "from lab import {}", "from . import {}", "from .{} import x", "import lab.{} as y"]


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES), st.sampled_from(FORMS)), max_size=10),
    st.sampled_from(NAMES),
    st.sampled_from(NAMES),
)
@settings(deadline=None, max_examples=40)
def test_an_edit_of_a_module_changes_the_work_if_the_module_is_reached(
    imports: list[tuple[str, str, str]], start: str, edited: str
) -> None:
    """And only then, whoever imports whom."""
    files: dict[str, str | bytes] = {"lab/__init__.py": ""}
    for name in NAMES:
        lines = [form.format(other) for importer, other, form in imports if importer == name]
        files[f"lab/{name}.py"] = "\n".join(lines) + "\nx = 1\n"
    within = {start}
    for _ in NAMES:
        within |= {other for importer, other, _ in imports if importer in within}
    texts = texts_of(f"def electron():\n    from lab.{start} import x\n")
    after = files | {f"lab/{edited}.py": str(files[f"lab/{edited}.py"]) + "y = 2\n"}
    assert (reached(read(files), texts) != reached(read(after), texts)) == (edited in within)


# --- which edits are none ---------------------------------------------------------------------------------------------

SOURCE = '''\
"""A module."""
import math

LIMIT = {0}

class Net:
    """A net."""

    size = {1}

    def forward(self, x, *, scale={2}):
        """Go."""
        if x > LIMIT:
            return [x * each for each in range({3})]
        text = """a
        b"""
        return (
            math.sqrt(x)
            + {4}
        )
'''
NUMBERS = st.lists(st.integers(0, 10**6), min_size=5, max_size=5)


@st.composite
def commented(draw: Any, source: str) -> str:
    """The source with comments and empty lines where Python allows them."""
    lines, inside = [], False
    for line in source.splitlines():
        comment = "  # " + draw(st.text("abc \t#'\"é日", max_size=8)) if draw(st.booleans()) else ""
        inside_before, inside = inside, inside != (line.count('"""') == 1)
        lines.append(line if inside else line + comment)
        if not inside and not inside_before:
            lines += draw(st.lists(st.sampled_from(["", "# a line", "        # another"]), max_size=2))
    return "\n".join(lines) + "\n"


@given(st.data(), NUMBERS)
@settings(deadline=None, max_examples=40)
def test_a_comment_changes_nothing(data: Any, numbers: list[int]) -> None:
    """Neither in a package, nor in a script."""
    source = SOURCE.format(*numbers)
    other = data.draw(commented(source))
    assert digest_in_package(source) == digest_in_package(other)
    assert digest_in_script(source) == digest_in_script(other)


@given(NUMBERS, NUMBERS)
@settings(deadline=None, max_examples=40)
def test_a_constant_is_a_change(one: list[int], two: list[int]) -> None:
    """Wherever it is."""
    same = one == two
    assert (digest_in_package(SOURCE.format(*one)) == digest_in_package(SOURCE.format(*two))) == same
    assert (digest_in_script(SOURCE.format(*one)) == digest_in_script(SOURCE.format(*two))) == same


@pytest.mark.parametrize("at", range(5))
def test_each_constant_is_a_change(at: int) -> None:
    """Each alone; and of another type."""
    one, two, three = ([7 if each == at else 1 for each in range(5)] for _ in range(3))
    two[at], three[at] = 8, 7.0  # type: ignore[call-overload]
    for digest in (digest_in_package, digest_in_script):
        assert len({digest(SOURCE.format(*each)) for each in (one, two, three)}) == 3


def digest_in_package(source: str) -> str:
    """Of a module with this source."""
    return read({"lab/net.py": source})["lab/net.py"].digest


def digest_in_script(source: str) -> str:
    """Of a function that uses the class of a script with this source."""
    module = types.ModuleType("script")
    exec(compile(source + "\ndef electron(x):\n    return Net().forward(x)\n", "s.py", "exec"), vars(module))
    return describe(cloudpickle.dumps(vars(module)["electron"])).digest


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("def f(x):\n    return x+1", True),
        ("def f(x):\n    return (x  +  1)\n", True),
        ("def f(\n    x,\n):\n    return x + \\\n        1\n", True),
        ('def f(x):\n    "Doc."\n    return x + 1\n', False),
        ("def f(y):\n    return y + 1\n", False),
        ("def f(x):\n    return 1 + x\n", False),
        ("from __future__ import annotations\ndef f(x):\n    return x + 1\n", False),
    ],
)
def test_layout_is_no_change_and_all_else_is(other: str, same: bool) -> None:
    """Docstrings too, which programs can read."""
    assert (digest_in_package("def f(x):\n    return x + 1\n") == digest_in_package(other)) == same


def test_a_comment_that_says_the_encoding_is_a_change_if_it_changes_a_text() -> None:
    """It is what Python reads."""
    one, two = (b"# coding: %s\nx = '\xe9'\n" % each for each in (b"latin-1", b"cp437"))
    assert read({"a.py": one})["a.py"].digest != read({"a.py": two})["a.py"].digest


def test_other_files_count_byte_for_byte() -> None:
    """A comment in a text is a change, and so is the right to execute it."""
    assert read({"lab/a.txt": "# a"})["lab/a.txt"].digest != read({"lab/a.txt": "# b"})["lab/a.txt"].digest
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as zipped:
        info = zipfile.ZipInfo("lab/a.txt")
        info.external_attr = 0o755 << 16
        zipped.writestr(info, "# a")
    executable = read_archives([out.getvalue()])
    assert executable is not None
    assert executable["lab/a.txt"].digest != read({"lab/a.txt": "# a"})["lab/a.txt"].digest


def sources(number: int, size: int) -> dict[str, str | bytes]:
    """Modules of about this many bytes each."""
    return {f"lab/m{each}.py": "x = 1\n" * (size // 6) for each in range(number)}


def test_what_is_too_large_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts byte for byte, and may import anything."""

    def opaque(files: Iterable[PackedFile]) -> int:
        return sum(file.imports_anything for file in files)

    monkeypatch.setattr(package_files, "SOURCE_BYTES", 600)
    assert opaque(read(sources(2, 600)).values()) == 0
    assert opaque(read(sources(2, 700)).values()) == 2
    monkeypatch.setattr(package_files, "SOURCES_BYTES", 1200)
    assert opaque(read(sources(5, 600)).values()) == 3
    monkeypatch.setattr(package_files, "CONTENT_BYTES", 1000)
    assert read_archives([archive(sources(2, 600))]) is None


def test_what_is_no_archive_is_not_read() -> None:
    """Packages are compared by their digests then."""
    whole = archive(LAB)
    assert read_archives([b"no archive"]) is None
    assert read_archives([whole[:-30]]) is None
    broken = bytearray(archive({"lab/a.txt": "content"}))
    broken[broken.index(b"content")] ^= 1
    assert read_archives([bytes(broken)]) is None
