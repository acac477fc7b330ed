"""The numerics of examples/pipeline.py: each step does what it is for, and brings the volume nearer to the phantom."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SLICES, PIXELS, ANGLES, SEED = 3, 48, 60, 13

# Only looked for: whoever collects the tests would import torch.
MISSING = [name for name in ("numpy", "torch", "matplotlib") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


@pytest.fixture(scope="module")
def tomo() -> Iterator[Any]:
    """The modules of the package, which is beside the example and not on the path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        yield SimpleNamespace(
            **{name: importlib.import_module(f"tomo.{name}") for name in ("scan", "steps", "compare")}
        )


@pytest.fixture(scope="module")
def found(tomo: Any) -> dict[str, Any]:
    """The whole pipeline on a small scan, by ordinary calls."""
    raw = scan(tomo)
    sinograms = [tomo.steps.preprocess(each) for each in raw]
    reconstructions = [tomo.steps.reconstruct(each) for each in sinograms]
    axis = tomo.steps.calibrate(reconstructions)
    refined = [tomo.steps.refine(each, axis) for each in sinograms]
    compared: dict[str, Any] = tomo.compare.compare(raw, sinograms, reconstructions, axis, refined, SEED)
    return compared


def scan(tomo: Any, seed: int = SEED) -> list[Any]:
    """All slices of a scan."""
    return [tomo.scan.scan(index, SLICES, PIXELS, ANGLES, seed) for index in range(SLICES)]


def exact(tomo: Any, seed: int = SEED) -> Any:
    """Sinograms without noise and faults, shape (slices, angles, columns)."""
    import numpy as np

    axis, angles = tomo.scan.true_axis(PIXELS, seed), tomo.scan.angles_of(ANGLES)
    cuts = tomo.scan.ellipses(SLICES, PIXELS, seed)
    return np.stack([tomo.scan.line_integrals(each, angles, PIXELS, axis) for each in cuts]).astype(np.float32)


def test_each_step_lowers_the_error(tomo: Any, found: dict[str, Any]) -> None:
    """From the scan to the last step, against the phantom."""
    errors = found["errors"]
    assert list(errors) == [tomo.compare.SCAN, *tomo.compare.STEPS]
    values = list(errors.values())
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)
    assert errors["refine"] < 0.85 * errors["calibrate"]


def test_the_lattice_is_the_same_outside_of_covalent(tomo: Any, found: dict[str, Any]) -> None:
    """Called like a function, as `python examples/pipeline.py --here` does: a map is a loop."""
    pipeline = importlib.import_module("pipeline")
    assert pipeline.tomography(SLICES, PIXELS, ANGLES, seed=SEED)["errors"] == found["errors"]


def test_the_errors_are_printed_with_the_axis(tomo: Any, found: dict[str, Any]) -> None:
    """One line for the scan and for each step."""
    lines = tomo.compare.lines(found)
    assert [line.split()[-3] for line in lines[1:-1]] == ["scan", "preprocess", "reconstruct", "calibrate", "refine"]
    assert [float(line.split()[-2]) for line in lines[1:-1]] == list(found["errors"].values())
    assert f"{found['axis']:+.2f}" in lines[-1]


def test_preprocessing_leaves_only_the_noise(tomo: Any) -> None:
    """Tilt, drift and gains are gone: what differs from the exact attenuations is as large as the noise of photons."""
    import numpy as np

    raw, truth = scan(tomo), exact(tomo)
    for each, exactly in zip(raw, truth, strict=True):
        error = tomo.steps.preprocess(each) - exactly
        noise = np.exp(exactly / 2) / np.sqrt(tomo.scan.PHOTONS)
        assert np.abs(error.mean()) < 0.01
        assert error.std() < 1.5 * np.sqrt((noise**2).mean())  # the beam is weaker than in the middle on one side


def test_preprocessing_removes_a_stripe(tomo: Any) -> None:
    """A pixel that has become less sensitive since the flat field makes no stripe."""
    import numpy as np

    raw = scan(tomo)[0]
    column = PIXELS // 3
    counts = raw.counts.astype(np.float32)
    counts[:, column] = raw.dark[column] + 0.9 * (counts[:, column] - raw.dark[column])
    changed = tomo.scan.RawSlice(counts, raw.flat, raw.dark)
    stripe = (tomo.steps.preprocess(changed) - tomo.steps.preprocess(raw))[:, column].mean()
    assert abs(stripe) < 0.2 * -np.log(0.9)


def test_back_projection_gives_the_phantom_of_exact_attenuations(tomo: Any) -> None:
    """At the right axis; a pixel beside it, it does not. Inside the object the mean is right to a hundredth."""
    truth, axis = tomo.scan.phantom(SLICES, PIXELS, SEED), tomo.scan.true_axis(PIXELS, SEED)
    at_axis, beside = (tomo.steps.back_projections(exact(tomo), [axis, axis + 1])[:, index] for index in (0, 1))
    assert tomo.compare.error_of(at_axis, truth) < 15
    assert tomo.compare.error_of(beside, truth) > 1.5 * tomo.compare.error_of(at_axis, truth)
    inside = slice(PIXELS // 4, -PIXELS // 4)
    assert at_axis[:, inside, inside].mean() == pytest.approx(truth[:, inside, inside].mean(), rel=0.01)


@pytest.mark.parametrize("seed", range(1, 9))
def test_the_axis_of_any_scan_is_found_to_a_part_of_a_pixel(tomo: Any, seed: int) -> None:
    """Although slices are reconstructed at whole pixels only."""
    sinograms = [tomo.steps.preprocess(each) for each in scan(tomo, seed)]
    axis = tomo.steps.calibrate([tomo.steps.reconstruct(each) for each in sinograms])
    assert axis == pytest.approx(tomo.scan.true_axis(PIXELS, seed), abs=0.2)


def test_the_refinement_projects_like_the_scan(tomo: Any) -> None:
    """The sums along the rays of the phantom's image are the attenuations that were computed from the ellipses."""
    import numpy as np
    import torch

    axis = tomo.scan.true_axis(PIXELS, SEED)
    project = tomo.steps._projector(ANGLES, PIXELS, axis, torch.device("cpu"))
    image = torch.from_numpy(tomo.scan.phantom(SLICES, PIXELS, SEED)[0])
    difference = project(image).numpy() - exact(tomo)[0]
    assert np.abs(difference).mean() < 0.02 * exact(tomo)[0].max()


def test_the_transposes_are_exact(tomo: Any) -> None:
    """(A x, y) = (x, A' y), without which the iterations would not converge."""
    import torch

    random = torch.Generator().manual_seed(1)
    image = torch.rand(PIXELS, PIXELS, generator=random)
    for linear in (tomo.steps._projector(ANGLES, PIXELS, 1.5, image.device), tomo.steps._gradient):
        value = linear(image)
        other = torch.rand(value.shape, generator=random)
        back = tomo.steps._transpose(linear, image)(other)
        assert float((value * other).sum()) == pytest.approx(float((image * back).sum()), rel=1e-4)


def test_the_same_seed_makes_the_same_scan(tomo: Any) -> None:
    """And another seed another one."""
    one, same, other = (scan(tomo, seed)[0].counts for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_a_picture_for_each_step_and_one_of_all(tomo: Any, found: dict[str, Any], tmp_path: Path) -> None:
    """PNG files, in the order of the steps."""
    paths = tomo.compare.draw(found, tmp_path / "pictures")
    names = ["1-preprocess.png", "2-reconstruct.png", "3-calibrate.png", "4-refine.png", "steps.png"]
    assert [path.name for path in paths] == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
