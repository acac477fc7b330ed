"""docs/first-sweep.md as it stands: a newcomer's first day, with a package of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from covalent_cirro.local.local_stack import LocalStack

pytestmark = [pytest.mark.covalent, pytest.mark.timeout(400)]

PAGE = Path(__file__).parents[2] / "docs" / "first-sweep.md"


class Day:
    """A folder, in which the page's files are written and its commands are typed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.text = PAGE.read_text()
        self.dispatch = ""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "COVALENT_", "CIRRO_"))}
        path = os.pathsep.join((str(Path(sys.executable).parent), kept["PATH"]))
        self._environment = {**kept, "PATH": path, "HOME": str(folder)}

    def block(self, after: str) -> str:
        """The first block of Python after some words of the page."""
        found = re.search(r"```python\n(.*?)```", self.text.split(after, 1)[1], re.DOTALL)
        assert found is not None
        return found[1]

    def commands(self, heading: str) -> list[str]:
        """The commands of a section."""
        section = re.split(r"^## ", self.text.split(f"## {heading}\n", 1)[1], flags=re.MULTILINE)[0]
        return [line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]

    def type(self, command: str) -> str:
        """Run a command of the page; what it prints, on both streams."""
        done = subprocess.run(
            command.replace("DISPATCH", self.dispatch),
            shell=True,
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        return done.stdout


@pytest.fixture
def day(tmp_path: Path) -> Iterator[Day]:
    """An empty folder."""
    folder = tmp_path / "my sweep"
    folder.mkdir()
    yield Day(folder)
    LocalStack(folder / ".cirro").down()


def test_the_page_from_an_empty_folder_to_the_report(day: Day) -> None:
    """Every file and command of it, in its order; what it says of their output is true."""
    (day.folder / "lab").mkdir()
    (day.folder / "lab" / "__init__.py").touch()
    model = day.folder / "lab" / "model.py"
    for name in ("lab/data.py", "lab/model.py", "sweep.py"):
        (day.folder / name).write_text(day.block(f"`{name}`:"))

    up, run, *looks = day.commands("3. Run it")
    day.type(up)
    said = day.type(run)
    day.dispatch = re.findall(r"dispatch (\w{8})", said)[0]
    assert "the dispatch is COMPLETED" in said
    assert len(re.findall(r"train: ValueError: a learning rate is above 0, not -0.3", said)) == 2
    assert "Trained(config=Config(rate=0.3, epochs=10)" in said
    assert "Config(rate=0.1, epochs=5)" in said  # a default that is an object of the package
    assert re.search(rf"cirro run --reuse {day.dispatch} sweep.py", said)
    listed, shown, logged = map(day.type, looks)
    assert listed.count(day.dispatch) == 10
    assert "rate 0.03, epochs 10" in shown
    assert re.search(r"epoch 10: y = \d\.\d\d x \+ \d\.\d\d", logged)

    was, becomes = day.block("replace\n"), day.block("with\n")
    assert was in model.read_text()
    model.write_text(model.read_text().replace(was, becomes))
    (again,) = day.commands("4. Change something")
    said = day.type(again)
    assert "the dispatch is COMPLETED" in said
    assert "1 of 10 electrons reused" in said
    assert "lab/model.py changed" in said
    day.dispatch = re.findall(r"dispatch (\w{8})", said)[0]

    report, down = day.commands("5. The report")
    assert f"cirro-report-{day.dispatch}.html" in day.type(report)
    assert day.dispatch in (day.folder / f"cirro-report-{day.dispatch}.html").read_text()
    day.type(down)
    assert not (day.folder / ".cirro").exists()
