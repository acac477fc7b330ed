"""What an annotation says of a document's field, and what is refused."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import pytest

from covalent_cirro.contract import codec
from covalent_cirro.contract.maps import Span
from covalent_cirro.contract.problems import ProtocolError
from covalent_cirro.contract.references import Blob, Inline, Input, NodeOutput


def upper(value: object, _path: str) -> str:
    """A field that is read in its own way."""
    return str(value).upper()


class Thing(NamedTuple):
    """A type with a field of each kind."""

    name: Annotated[str, 5]
    count: Annotated[int, 9] = 3
    seconds: float | None = None
    parts: Annotated[tuple[Span, ...], 2] = ()
    pair: tuple[int, str] = (0, "")
    inputs: dict[str, Input] | None = None
    loud: Annotated[str, upper] = ""

    def check(self, path: str, _limit: Any) -> None:
        """Refuse one name."""
        if self.name == "bad":
            raise ProtocolError(f"{path} is bad")


WHOLE = Thing("a", 4, 0.5, (Span(0, 1, 2),), (7, "x"), {"one": Inline(b"\0"), "other": NodeOutput(3)}, "LOUD")


def test_a_value_comes_back_as_it_was() -> None:
    """With what is written in another form than an object of its fields."""
    dumped = codec.dump(WHOLE)
    assert dumped["parts"] == [[0, 1, 2]]
    assert dumped["inputs"] == {"one": {"inline": "AA=="}, "other": {"node": 3}}
    assert codec.read(Thing, dumped, "thing") == WHOLE


@pytest.mark.parametrize("document", [{"name": "a"}, {"name": "a", "count": None, "seconds": None, "parts": None}])
def test_what_is_missing_or_null_has_its_default(document: dict[str, Any]) -> None:
    """As in documents of older versions."""
    assert codec.read(Thing, document, "thing") == Thing("a")


def test_a_field_can_be_cut_or_read_in_its_own_way() -> None:
    """By its limit, and by the function in the limit's place."""
    assert codec.read(Thing, {"name": "abcdefgh", "loud": "hey"}, "thing") == Thing("abcde", loud="HEY")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "thing is not an object"),
        ({}, "thing.name is not a string"),
        ({"name": "bad"}, "thing is bad"),
        ({"name": "a", "count": 10}, "thing.count is not a number from 0 to 9"),
        ({"name": "a", "count": True}, "thing.count is not a whole number"),
        ({"name": "a", "seconds": "1"}, "thing.seconds is not a number"),
        ({"name": "a", "parts": [[1, 2, 3]] * 3}, "thing.parts has 3 entries, at most 2 are possible"),
        ({"name": "a", "parts": [[1, 2]]}, r"thing.parts\[0\] has 2 entries instead of 3"),
        ({"name": "a", "pair": [1, 2]}, r"thing.pair\[1\] is not a string"),
        ({"name": "a", "inputs": {"x": {"inline": "?"}}}, "thing.inputs.x.inline is not base64"),
        ({"name": "a", "inputs": {"x": {}}}, "thing.inputs.x.sha256 is not a string"),
    ],
)
def test_another_form_is_refused_with_its_place(document: object, message: str) -> None:
    """Whatever a job wrote."""
    with pytest.raises(ProtocolError, match=message):
        codec.read(Thing, document, "thing")


def test_a_limit_of_a_union_is_its_members() -> None:
    """Bytes inside a document have the limit of the field that they are in."""

    class Small(NamedTuple):
        body: Annotated[Inline | Blob, 2]

    assert codec.read(Small, {"body": {"inline": "AAA="}}, "small") == Small(Inline(b"\0\0"))
    with pytest.raises(ProtocolError, match=r"small\.body\.inline has 3 bytes, more than 2"):
        codec.read(Small, {"body": {"inline": "AAAA"}}, "small")
