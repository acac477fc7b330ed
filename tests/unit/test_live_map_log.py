"""The log of a map while its jobs run: the last lines of a few of them, with few reads."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from covalent_cirro.contract.log_parts import Part
from covalent_cirro.contract.places import location
from covalent_cirro.covalent_server.view import LogFile
from covalent_cirro.electron.maps.live_map_log import READS, SHOWN, LiveMapLog, chosen_jobs
from covalent_cirro.jobs.map_progress import JobItems

PLACE = location("bucket", "cirro/", "d", 3, "0123456789ab00000000")


def job(number: int, failed: int = 0, *, ended: bool = False) -> JobItems:
    """A job of ten items."""
    return JobItems(number, 10 * number, 10 * number + 10, failed, failed, ended)


def key(number: int, part: int, stream: str = "stdout", attempt: int = 1) -> str:
    """The key of a part of the log of a job."""
    return PLACE.child(number).log_key(Part(attempt, stream, part).name)


class Store:
    """Parts by their keys; counts what is read."""

    def __init__(self, parts: dict[str, str]) -> None:
        self.parts, self.read = parts, list[str]()

    async def list_keys(self, bucket: str, prefix: str) -> list[tuple[str, datetime]]:
        """Not used here."""
        raise AssertionError

    async def get_document(self, bucket: str, key: str, limit: int) -> bytes | None:
        """The text of a part."""
        self.read.append(key)
        return self.parts[key].encode()


def made(store: Store, folder: Path, sizes: dict[int, int]) -> LiveMapLog:
    """The log of a map, in files of a folder."""

    def files(dispatch_id: str, node_id: int) -> dict[str, LogFile]:
        assert (dispatch_id, node_id) == ("d", 3)
        return {"stdout": LogFile(1, str(folder / "stdout")), "stderr": LogFile(2, str(folder / "stderr"))}

    return LiveMapLog(store, files, sizes.update, PLACE, 3)


def test_jobs_with_failures_come_first_then_those_that_run() -> None:
    """No others, none without a log, and only a few."""
    jobs = [job(0), job(1, ended=True), job(2, failed=3, ended=True), job(3), job(4), *(job(i) for i in range(5, 20))]
    assert [each.number for each in chosen_jobs(jobs, set(range(20)) - {3})] == [2, 0, 4, 5]
    assert len(chosen_jobs(jobs, set(range(20)))) == SHOWN


async def test_the_newest_parts_are_shown_and_each_is_read_once(tmp_path: Path) -> None:
    """A few at a look, whatever there is; a part that is not new is not read again."""
    store, sizes = (
        Store({key(0, 1): "epoch 2\n", key(1, 0, "stderr"): "oh\nno\n", key(2, 0): "two\n"}),
        dict[int, int](),
    )
    log = made(store, tmp_path, sizes)
    keys = [key(0, 0), *store.parts, PLACE.child(0).outcome_key, PLACE.array_base + "x/log/01/stdout.000000"]
    jobs = [job(0), job(1, failed=1), job(2)]
    await log.look(keys, jobs)
    assert len(store.read) == READS
    await log.look(keys, jobs)
    await log.look(keys, jobs)
    assert sorted(store.read) == sorted(store.parts)
    assert (tmp_path / "stdout").read_text().splitlines() == [
        "--- items 0-9 (job 0): the last lines so far ---",
        "epoch 2",
        "--- items 20-29 (job 2): the last lines so far ---",
        "two",
        "--- of all 3 jobs, while they run: cirro logs 'd:3[ITEM]' ---",
    ]
    assert (
        (tmp_path / "stderr")
        .read_text()
        .startswith("--- items 10-19 (job 1), 1 failed: the last lines so far ---\noh\nno\n")
    )
    assert sizes == {1: (tmp_path / "stdout").stat().st_size, 2: (tmp_path / "stderr").stat().st_size}


async def test_nothing_is_written_while_nothing_was_printed(tmp_path: Path) -> None:
    """The files stay as they are."""
    log = made(Store({}), tmp_path, {})
    await log.look([PLACE.child(0).outcome_key], [job(0)])
    assert list(tmp_path.iterdir()) == []
