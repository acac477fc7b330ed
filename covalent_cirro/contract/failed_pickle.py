"""The pickle of an `ElectronFailed`, written by hand, so that the server's process need not import pickle. Pure."""

from __future__ import annotations

CLASS = ("covalent_cirro.errors", "ElectronFailed")
"""Module and name of the class, which every job has, with the runner."""

NONE = b"\x80\x04N."
"""The pickle of `None`: PROTO 4, NONE, STOP."""


def pickle_of_failed(text: str) -> bytes:
    """The pickle of ``ElectronFailed(text)``, by reference to the class.

    In the opcodes of `pickletools`: PROTO 4, GLOBAL, BINUNICODE text, TUPLE1, REDUCE, STOP.
    """
    data = text.encode("utf-8", "surrogatepass")
    name = "c{}\n{}\n".format(*CLASS).encode()
    return b"\x80\x04" + name + b"X" + len(data).to_bytes(4, "little") + data + b"\x85R."
