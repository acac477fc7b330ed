"""The sizes of jobs on AWS Fargate, and what settings of a job there cannot be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covalent_cirro.errors import SettingsError
from covalent_cirro.jobs import fargate_texts
from covalent_cirro.local.emulator.batch.fargate_rules import FARGATE_MIB
from covalent_cirro.settings import resolve
from covalent_cirro.settings.fargate_sizes import MEMORY_MIB, Size, fitting


@pytest.mark.parametrize(
    ("asked", "fits"),
    [
        (Size(0.25, 512), Size(0.25, 512)),
        (Size(0.25, 513), Size(0.25, 1024)),
        (Size(0.25, 3 * 1024), Size(0.5, 3 * 1024)),
        (Size(1, 512), Size(1, 2048)),
        (Size(2, 3840), Size(2, 4096)),
        (Size(2, 17 * 1024), Size(4, 17 * 1024)),
        (Size(3, 1024), Size(4, 8 * 1024)),
        (Size(8, 17 * 1024), Size(8, 20 * 1024)),
        (Size(16, 121 * 1024), Size(32, 244 * 1024)),
        (Size(33, 1024), None),
        (Size(1, 245 * 1024), None),
    ],
)
def test_the_next_size_that_fits(asked: Size, fits: Size | None) -> None:
    """vCPUs are raised before memory."""
    assert fitting(asked) == fits


@given(st.sampled_from([0.25, 0.5, *range(1, 33)]), st.integers(128, 244 * 1024))
def test_a_size_is_one_that_fargate_has_and_not_larger_than_needed(vcpus: float, mib: int) -> None:
    """Compared with the table of the emulated AWS, which is written down by itself."""
    found = fitting(Size(vcpus, mib))
    assert found is not None
    assert found.memory_mib in FARGATE_MIB[f"{found.vcpus:g}"]
    assert found.vcpus >= vcpus
    assert found.memory_mib >= mib
    smaller = [(one, each) for one, memory in MEMORY_MIB.items() for each in memory if one >= vcpus and each >= mib]
    assert found == min(smaller)


def test_the_table_is_that_of_the_emulated_aws() -> None:
    """Which refuses all others."""
    assert {f"{vcpus:g}": list(memory) for vcpus, memory in MEMORY_MIB.items()} == {
        vcpus: list(memory) for vcpus, memory in FARGATE_MIB.items()
    }


def test_a_size_that_is_raised_is_told() -> None:
    """And one that Fargate has is left as it is; on instances every size is."""
    settings = resolve({"platform": "FARGATE", "vcpu": 2, "memory": 17}, {})
    assert settings.size == Size(4, 17 * 1024)
    assert settings.memory_mib == 17 * 1024
    assert fargate_texts.raised(settings) == ("2 vCPU and 17 GB -> 4 vCPU and 17 GB, the next size that Fargate has")
    assert fargate_texts.raised(resolve({"platform": "FARGATE", "vcpu": 0.5, "memory": 2}, {})) == ""
    assert fargate_texts.raised(resolve({"vcpu": 2, "memory": 17}, {})) == ""


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_gpus": 1}, r"num_gpus=1 is not possible with platform"),
        ({"shared_memory_gb": 1}, r"shared_memory_gb=1.* is not possible with platform"),
        ({"batch_execution_role_name": ""}, r"batch_execution_role_name=\"\" is not possible.*pull"),
        ({"vcpu": 64}, r"vcpu=64 and memory=3.75 are more than.*32 vCPU and 244 GB"),
        ({"memory": 300}, r"memory=300 are more than.*32 vCPU and 244 GB"),
        ({"memory": 4, "memory_max": 400}, r"memory_max=400 is more than the 244 GB"),
    ],
)
def test_what_fargate_cannot_do_is_refused(options: dict[str, object], words: str) -> None:
    """Before anything is sent to AWS, with what to do."""
    with pytest.raises(SettingsError, match=words) as raised:
        resolve({"platform": "FARGATE", **options}, {})
    assert 'platform="EC2"' in str(raised.value) or "cirro deploy" in str(raised.value)


def test_a_part_of_a_vcpu_is_for_fargate() -> None:
    """An instance gives whole ones."""
    assert resolve({"platform": "FARGATE", "vcpu": 0.25, "memory": 0.5}, {}).size == Size(0.25, 512)
    with pytest.raises(SettingsError, match=r"vcpu=0\.5 is possible only on Fargate"):
        resolve({"vcpu": 0.5}, {})
