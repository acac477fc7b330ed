"""The tasks of `with_redun`: a module of its own, which redun uploads and jobs import. It needs redun alone."""

import zlib

from redun import task

redun_namespace = "peers"


@task(executor="batch")
def square(index: int) -> int:
    """A trivial task."""
    return index * index


@task(executor="batch")
def checked(data: bytes, index: int) -> int:
    """A task that needs the shared value."""
    return zlib.crc32(data) + index


@task()
def squares(count: int) -> list[int]:
    """Trivial tasks."""
    return [square(index) for index in range(count)]


@task()
def all_checked(data: bytes, count: int) -> list[int]:
    """Tasks that share a value."""
    return [checked(data, index) for index in range(count)]
