"""What is read of an electron's arguments on the server: the beginnings of texts in files that Covalent wrote."""

from __future__ import annotations

from pathlib import Path

from covalent._workflow.transportable_object import TransportableObject

from covalent_cirro.contract.protocol import Arguments
from covalent_cirro.covalent_server.assets import Group, InputParameter
from covalent_cirro.electron import called_with


def read(inputs: dict[int, str], *parameters: InputParameter) -> Arguments:
    """What is read of an electron with these parameters."""
    return called_with.read(Group({}, inputs, "", "", "", parameters={7: parameters}))[7]


def test_texts_are_those_that_covalent_stored(tmp_path: Path) -> None:
    """Of values and of Covalent's own lists and dicts; the pickle behind the text is not looked at."""
    path = tmp_path / "value.tobj"
    whole = TransportableObject({"rate": 0.1, "sizes": [1, 2]}).serialize()
    path.write_bytes(whole[: whole.index(b"}", whole.index(b"'sizes'")) + 1])
    for name in (":parameter:{'rate': 0.1, 'sizes': [1, 2]}", ":electron_dict:", "data_+_1"):
        assert read({1: str(path)}, InputParameter("x", 1, name)) == (("x.rate", "0.1"), ("x.sizes", "[1, 2]"))


def test_the_output_of_another_electron_is_named_and_not_read() -> None:
    """An electron's, whether it is in the same task group or not, and a sublattice's."""
    parameters = InputParameter("data", 1, "load_data"), InputParameter("model", 2, ":sublattice:train")
    assert read({1: "/nowhere"}, *parameters) == (("data", "load_data()"), ("model", "train()"))


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    """A file that is missing or damaged, and an output that does not exist yet: no electron fails for it."""
    damaged = tmp_path / "damaged.tobj"
    damaged.write_bytes(b"\0" * 8)
    inputs = {1: str(tmp_path / "missing.tobj"), 2: str(damaged)}
    assert read(inputs, *(InputParameter("x", node_id, ":electron_list:") for node_id in (1, 2, 3))) == ()
