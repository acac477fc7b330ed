"""What an electron was called with, in a few words: from the texts of its arguments, which anybody may have written."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covalent_cirro.contract.limits import ARGUMENT_CHARS, ARGUMENT_NAME_CHARS, MAX_ARGUMENTS
from covalent_cirro.contract.protocol import Arguments
from covalent_cirro.jobs import arguments
from covalent_cirro.jobs.arguments import NOT_SHOWN, TEXT_BYTES, differing, line, load_parameter, summary


@dataclasses.dataclass
class Optimizer:
    """A part of a configuration."""

    lr: float
    name: str = "adam"


@dataclasses.dataclass
class Configuration:
    """A configuration of a sweep."""

    width: int
    optimizer: Optimizer


class Size(NamedTuple):
    """A size."""

    rows: int
    columns: int


class Model:
    """A class without a text of its own."""


def shown(value: Any, name: str = "x") -> str:
    """The line of one argument."""
    return line(summary([(name, str(value))]))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "x=3"),
        (0.1 + 0.2, "x=0.3"),
        (-1 / 3, "x=-0.333333"),
        (1e-9 / 3, "x=3.33333e-10"),
        (1764453062.123456, "x=1764453062"),
        (True, "x=True"),
        (None, "x=None"),
        ("", "x=''"),
        ("adam", "x=adam"),
        ("two\nlines", "x=two lines"),
        ("it's, isn't (it)", "x=it's, isn't (it)"),
        (Configuration(16, Optimizer(0.30000000000000004)), "x=width 16, optimizer.lr 0.3, optimizer.name adam"),
        (Size(3, 4), "x=rows 3, columns 4"),
        ({"lr": 0.03, "layers": [1, 2]}, "x=lr 0.03, layers [1, 2]"),
        ({1: "a", "b c": "d:e"}, "x=1 a, b c d:e"),
        ({}, "x={}"),
        ("lr=0.03 name='two words'", "x=lr 0.03, name two words"),  # str() of a model of pydantic
        ("lr=0.03 and more", "x=lr=0.03 and more"),
        (Model(), "x=Model"),
        ([Model(), len], "x=[Model, len]"),
        (lambda: 0, "x=lambda"),
        (Model, "x=Model"),
        ([1, 2, 3], "x=[1, 2, 3]"),
        (list(range(100)), "x=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... 100 in all]"),
        (list(range(100_000)), "x=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, ...]"),
        ("x" * 100_000, f"x={'x' * 45}..."),
        ("/data/experiments/2026/november/run-17/part-0001.csv", "x=/data/experiments/2026...r/run-17/part-0001.csv"),
        ("[[0.1 0.2]\n [0.3 0.4]]", "x=[[0.1 0.2] [0.3 0.4]]"),
        ("   a  b\n0  1  2\n" + "1  3  4\n" * 20, "x=a b..."),
        ("Linear(in_features=2, out_features=3, bias=True)", "x=in_features 2, out_features 3, bias True"),
        ("tensor([0.5, 0.5])", "x=tensor([0.5, 0.5])"),
        ("Mode.TRAIN", "x=Mode.TRAIN"),
        ("<b>bold</b>", "x=<b>bold</b>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_shown_in_a_few_words(value: Any, text: str) -> None:
    """Fields of a configuration one by one, numbers short, an object by its class, a list by its size."""
    assert shown(value) == text


def test_several_arguments_are_one_line() -> None:
    """Fields of the same argument are named after it once; an electron's output is that electron."""
    given = [("config", "{'lr': 0.03, 'width': 16}"), ("epochs", "3"), ("data", arguments.output_of("load_data"))]
    assert line(summary(given)) == "config=lr 0.03, width 16, epochs=3, data=load_data()"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("password", "hunter2"),
        ("db_password", 1234),
        ("apiKey", "abc"),
        ("API_KEY", "abc"),
        ("token", "abc"),
        ("hf_tokens", ["abc"]),
        ("aws_secret_access_key", "abc"),
        ("credentials", {"user": "me", "x": "y"}),
        ("config", {"db": {"passwd": "hunter2"}}),
        ("headers", {"Authorization": "Basic aHVudGVyMg=="}),
        ("url", "postgres://me:hunter2@db/data"),
        ("command", "load --password hunter2"),
        ("deep", [{"a": {"secret": "hunter2"}}]),
        ("deeper", {"a": {"b": {"c": {"d": {"token": "hunter2"}}}}}),
        ("x", "AKIAIOSFODNN7EXAMPLE"),
        ("x", "ghp_16C7e42F292c6912E7710c838347Ae178B4a"),
        ("x", "-----BEGIN PRIVATE KEY-----\nMIIE"),
    ],
    ids=str,
)
def test_what_looks_like_a_credential_is_left_out(name: str, value: Any) -> None:
    """By the name of the argument or of a field at any depth, or by its own look."""
    text = shown(value, name)
    assert NOT_SHOWN in text
    assert not any(secret in text for secret in ("hunter2", "1234", "abc", "aHVudGVyMg", "AKIA", "ghp_", "MIIE"))


@pytest.mark.parametrize("name", ["max_tokens", "key_size", "author", "tokenizer", "passes", "monkey"])
def test_a_number_of_tokens_is_no_credential(name: str) -> None:
    """Nor is what only has such a word in it."""
    assert shown(512, name) == f"{name}=512"


def test_electrons_are_told_apart_by_what_differs() -> None:
    """All of one function in one dispatch; another function, or the only electron of its kind, is no matter."""

    def of(kind: str, **given: object) -> tuple[str, Arguments]:
        return kind, summary((name, str(value)) for name, value in given.items())

    seen = differing(
        [
            of("train", config={"lr": 0.1, "width": 16}, epochs=3),
            of("train", config={"lr": 0.2, "width": 16}, epochs=3),
            of("train", config={"lr": 0.2, "width": 16}, epochs=3, resume=True),
            of("load", epochs=9),
        ]
    )
    assert [line(each) for each in seen] == ["config=lr 0.1", "config=lr 0.2", "config=lr 0.2, resume=True", ""]
    assert differing([]) == []


values = st.recursive(st.floats() | st.text(), lambda of: st.lists(of) | st.dictionaries(st.text(), of), max_leaves=9)
texts = st.text(max_size=200) | values.map(str)
long_texts = texts.map(lambda text: ((text + "[{(,=: ") * 99)[:9999])
anything = st.lists(st.tuples(texts, texts | long_texts), max_size=9)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(anything, st.integers(10, 200))
def test_whatever_arguments_say_their_line_is_short_and_harmless(given_: list[tuple[str, str]], most: int) -> None:
    """One line of characters that can be seen, and not more of them than a job or a table has room for."""
    found = summary(given_)
    assert len(found) <= MAX_ARGUMENTS
    assert all(len(name) <= ARGUMENT_NAME_CHARS and len(value) <= ARGUMENT_CHARS for name, value in found)
    assert line(found, most).isprintable()
    assert len(line(found, most)) <= most
    parameter = arguments.dump_parameter(found)
    assert parameter.isascii()
    assert len(parameter) <= arguments.PARAMETER_CHARS
    assert found[: len(load_parameter(parameter))] == load_parameter(parameter)


@given(st.text() | st.dictionaries(st.text(), st.text() | st.integers()).map(str))
def test_a_parameter_that_somebody_else_wrote_breaks_nothing(parameter: str) -> None:
    """It is shown within the same limits, or not at all."""
    assert line(load_parameter(parameter)).isprintable()


@pytest.mark.parametrize("parameter", ["", "3", "[1]", "{", '{"lr": 3}', "[" * 100_000, '{"a": "' + "b" * 9999 + '"}'])
def test_a_parameter_of_another_form_says_nothing(parameter: str) -> None:
    """No JSON, no object, no texts, or more than one of ours."""
    assert load_parameter(parameter) == ()


def test_a_parameter_has_no_characters_that_a_terminal_obeys() -> None:
    """Not even one that was written past `summary`."""
    assert load_parameter('{"l\\u001br": "\\u001b[2Jx\\u202ey"}') == (("l r", "[2Jx y"),)


def test_only_the_beginning_of_a_long_text_is_looked_at() -> None:
    """The field that the cut goes through is left out: its value may be another one."""
    text = str({f"field_{i}": i for i in range(1000)})[:TEXT_BYTES]
    assert all(name.rpartition("_")[2] == value for name, value in summary([("x", text)]))
