"""Values of secrets in texts that are stored or shown: found in whole and in pieces, in each form that CI finds."""

from __future__ import annotations

import base64
import html
import itertools
import json
import shlex
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from covalent_cirro.contract import packed_variables as variables
from covalent_cirro.runner import masking
from covalent_cirro.runner.masking import Mask

QUOTE, SHELL_QUOTE = "'", "'\\''"
PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n"


def in_pieces(mask: Mask, data: bytes, cuts: list[int]) -> bytes:
    """What a stream shows that comes in pieces."""
    stream = mask.stream()
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    shown = [stream.feed(data[begin:end]) for begin, end in itertools.pairwise(places)]
    return b"".join([*shown, stream.finish()])


def covered(values: list[bytes], data: bytes) -> bytes:
    """The same by counting: each run of bytes that belong to values is ``***``."""
    places = sorted((i, i + len(value)) for value in values for i in range(len(data)) if data.startswith(value, i))
    shown, at = [], 0
    for begin, end in places:
        if begin >= at:
            shown += [data[at:begin], b"***"]
        at = max(at, end)
    return b"".join([*shown, data[at:]])


@given(
    values=st.lists(st.text("ab", min_size=4, max_size=9), min_size=1, max_size=3),
    text=st.text("abc", max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=8),
)
@example(["abab", "ababab"], "xabababx", [5])
@example(["aaaa"], "aaaaaaaaaaaaaab", [3, 4, 7])
@example(["aaab", "abbb"], "aaabbb", [4])
def test_where_the_pieces_end_does_not_matter(values: list[str], text: str, cuts: list[int]) -> None:
    """No byte of a value is shown, every other byte is, and both are so wherever reads and writes cut the stream."""
    mask = Mask(values)
    expected = covered(mask.patterns, text.encode())
    assert in_pieces(mask, text.encode(), cuts) == expected
    assert mask.text(text) == expected.decode()


@given(
    value=st.text(min_size=4, max_size=40),
    before=st.text(max_size=20),
    after=st.text(max_size=20),
    cuts=st.lists(st.integers(0, 300), max_size=6),
)
def test_no_value_is_shown(value: str, before: str, after: str, cuts: list[int]) -> None:
    """Whatever characters it has, and whatever stands around it."""
    assume(
        len(value.strip()) >= 4 and "*" not in value and value.strip().lower() not in ("true", "false", "null", "none")
    )
    data = (before + value + after).encode("utf-8", "replace")
    assert value.encode("utf-8", "replace") not in in_pieces(
        Mask([value.encode("utf-8", "replace").decode()]), data, cuts
    )


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=6))
def test_a_stream_without_values_is_shown_as_it_is(data: bytes, cuts: list[int]) -> None:
    """Bytes that are no text, too."""
    assert in_pieces(Mask(["no-such-value-in-it"]), data, cuts) == data


@pytest.mark.parametrize("value", ['pa"ss/w\\ord ä=&1', "hunter2hunter2", "it's <mine>", "both 'of\" them"])
@pytest.mark.parametrize(
    "written",
    [
        lambda value: repr({"password": value}),
        lambda value: ascii({"password": value}),
        lambda value: repr({"password": value.encode()}),
        lambda value: repr(f"the \"password\" is '{value}'"),
        lambda value: f"+ curl -u 'ada:{value.replace(QUOTE, SHELL_QUOTE)}'",
        lambda value: shlex.quote(f"ada:{value}"),
        lambda value: f"<td>{html.escape(value)}</td>",
        lambda value: json.dumps({"password": value}),
        lambda value: json.dumps({"password": value}, ensure_ascii=False),
        lambda value: json.dumps({"message": json.dumps({"password": value})}),
        lambda value: f"postgres://ada:{quote(value, safe='')}@db",
        lambda value: f"password={quote_plus(value)}",
        lambda value: base64.b64encode(value.encode()).decode(),
        *(
            lambda value, user=user: f"Basic {base64.urlsafe_b64encode(f'{user}:{value}:end'.encode()).decode()}"
            for user in ("u", "us", "use")
        ),
    ],
)
def test_forms_in_which_programs_write_a_value(value: str, written: object) -> None:
    """Python, JSON, shells, HTML, URLs and Base64, there alone or behind a user's name."""
    text = str(written(value))  # type: ignore[operator]
    shown = Mask([value]).text(text)
    assert shown != text
    assert "***" in shown
    assert len(shown) < len(text) - len(value) / 2 + 3
    assert "hunter2" not in shown


def test_lines_of_a_value_are_found_one_by_one() -> None:
    """A private key is often printed without its line breaks, indented, or with those of Windows."""
    mask = Mask([PEM])
    for text in (PEM, repr(PEM), PEM.replace("\n", "\r\n"), PEM.replace("\n", "\n    "), "MIIEvQIBADANBgkq"):
        assert "MIIEvQIB" not in mask.text(text)
        assert "BAQEFAASC" not in mask.text(text)


def test_strings_in_json_are_found() -> None:
    """A secret that was not asked for by one of its keys."""
    value = json.dumps({"username": "ada-l", "password": "hunter2", "port": 5432, "more": [{"token": "abcd-1234"}]})
    assert Mask([value]).text("ada-l hunter2 5432 abcd-1234 true") == "*** *** 5432 *** true"


def test_short_values_and_words_of_any_log_are_shown() -> None:
    """Else a log would consist of stars."""
    mask = Mask(["abc", "True", "", "   \n", '{"debug": "false", "level": "3"}'])
    assert mask.text("abc True false 3") == "abc True false 3"


def test_a_log_is_masked_quickly() -> None:
    """Megabytes of log take less than seconds, with several secrets and pieces as long as a line."""
    mask = Mask(["sk-" + "a8Fd9" * 8, "hunter22!x", "ghp_" + "Zx81" * 9, PEM])
    line = b"2026-11-30 12:00:00,123 INFO epoch 12 step 3400 loss=0.12345 accuracy=0.98 lr=0.001\n"
    stream = mask.stream()
    began = time.process_time()
    for _ in range(10_000):
        stream.feed(line)
    assert time.process_time() - began < 5


def test_values_that_are_not_utf8_and_texts_with_half_characters() -> None:
    """A variable may have any bytes, and a text of Python halves of pairs of surrogates."""
    mask = Mask(["caf\udce9-latin", '{"a": "x\\ud800yyyy"}'])
    assert in_pieces(mask, b"<caf\xe9-latin>", [5]) == b"<***>"
    assert mask.text("<caf\udce9-latin>") == "<***>"
    assert mask.text("nothing \ud800") == "nothing \ud800"


def test_a_stream_holds_back_no_more_than_a_value() -> None:
    """Text that begins like a value waits; what cannot become one does not."""
    stream = Mask(["abcdefgh"]).stream()
    assert stream.feed(b"0 abcdef") == b"0 "
    assert stream.feed(b"x") == b"abcdefx"
    assert stream.feed(b"abcdefgh") == b"***"
    assert stream.feed(b"abc") == b""
    assert stream.finish() == b"abc"
    assert stream.finish() == b""


def test_variables_are_packed_and_unpacked() -> None:
    """The electron's process sees its own names only, and what an image has set by itself does not matter."""
    environ = {
        "PATH": "/bin",
        "CIRRO_ENVIRONMENT": variables.dump_environment({"A": "ü\n", "PATH": "/opt"}),
        "CIRRO_SECRET_KEY": "abcd",
        "CIRRO_SECRET_": "",
    }
    assert variables.unpack(environ) == {"KEY": "abcd"}
    assert environ == {"PATH": "/opt", "A": "ü\n", "KEY": "abcd", "CIRRO_SECRET_": ""}
    assert [variables.load_environment(text) for text in ("", "[", "[1]", '{"A": 1, "B": "x"}')] == [
        {},
        {},
        {},
        {"B": "x"},
    ]
    assert variables.dump_environment({"B": "1", "A": "2"}) == variables.dump_environment({"A": "2", "B": "1"})
    assert masking.MASKED == "***"
