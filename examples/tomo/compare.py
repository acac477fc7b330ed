"""How near the images of each step come to the phantom: as figures, and as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tomo.scan import RawSlice, phantom, true_axis
from tomo.steps import LEAST_TRANSMISSION, Reconstruction, back_projections

STEPS = ("preprocess", "reconstruct", "calibrate", "refine")
"""The four steps, in their order."""

SCAN = "scan"
"""Name of what there is before the first step."""


def compare(
    raw: Sequence[RawSlice],
    sinograms: Sequence[np.ndarray],
    reconstructions: Sequence[Reconstruction],
    axis: float,
    refined: Sequence[np.ndarray],
    seed: int,
) -> dict[str, Any]:
    """Compare the volume after each step with the phantom.

    A step without images of its own is judged by a filtered back-projection of its result. Before the axis is known,
    the middle of the detector is taken for it.

    Args:
        raw: The slices of the scan.
        sinograms: After the first step.
        reconstructions: After the second step: each slice at the axis that is the best for itself.
        axis: After the third step: the axis for all.
        refined: After the fourth step.
        seed: Seed of the scan.

    Returns:
        ``errors``: the error in percent (`error_of`) of `SCAN` and of each of `STEPS`. ``axis`` and ``true_axis``, in
        pixels. ``images``: one slice of ``phantom``, `SCAN` and each step. ``sinograms``: that slice's, of `SCAN` and
        ``preprocess``. Whoever reads them needs NumPy, and none of these modules.
    """
    truth = phantom(len(raw), refined[0].shape[-1], seed)
    uncorrected = np.stack([_uncorrected(each) for each in raw])
    corrected = np.stack(sinograms)
    volumes = {
        SCAN: back_projections(uncorrected, [0.0])[:, 0],
        "preprocess": back_projections(corrected, [0.0])[:, 0],
        "reconstruct": np.stack([each.image for each in reconstructions]),
        "calibrate": back_projections(corrected, [axis])[:, 0],
        "refine": np.stack(refined),
    }
    found = {
        "errors": {name: round(error_of(volume, truth), 2) for name, volume in volumes.items()},
        "axis": round(axis, 3),
        "true_axis": round(true_axis(truth.shape[-1], seed), 3),
    }
    print("\n".join(lines(found)), flush=True)
    shown = len(raw) // 2
    images = {"phantom": truth, **volumes}
    return {
        **found,
        "images": {name: volume[shown] for name, volume in images.items()},
        "sinograms": {SCAN: uncorrected[shown], "preprocess": corrected[shown]},
    }


def _uncorrected(raw: RawSlice) -> np.ndarray:
    """Attenuations as if the beam and the detector were the same everywhere and always."""
    transmission = (raw.counts - raw.dark.mean()) / (raw.flat - raw.dark).mean()
    return -np.log(np.maximum(transmission, LEAST_TRANSMISSION)).astype(np.float32)


def error_of(volume: np.ndarray, truth: np.ndarray) -> float:
    """Root of the mean squared error of a volume in the circle that all angles see, in percent of the phantom's."""
    at = np.arange(truth.shape[-1]) - (truth.shape[-1] - 1) / 2
    circle = at[None, :] ** 2 + at[:, None] ** 2 < (truth.shape[-1] / 2) ** 2
    return float(100 * np.linalg.norm((volume - truth)[:, circle]) / np.linalg.norm(truth[:, circle]))


def lines(found: Mapping[str, Any]) -> list[str]:
    """The result of `compare` in words."""
    names = {name: name if name == SCAN else f"after {name}" for name in found["errors"]}
    return [
        "error against the phantom",
        *(f"  {names[name]:<18}{error:6.2f} %" for name, error in found["errors"].items()),
        f"axis {found['axis']:+.2f} pixels from the middle of the detector; in truth {found['true_axis']:+.2f}",
    ]


def draw(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw a slice before and after each step, and one picture of all steps.

    Args:
        found: Result of `compare`.
        folder: Folder of the pictures.

    Returns:
        Paths of the pictures, PNG files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images, errors, sinograms = (found[key] for key in ("images", "errors", "sinograms"))
    titles = {name: f"{name}\nerror {errors[name]:.1f} %" if name in errors else name for name in images}
    dark, bright = float(images["phantom"].min()), float(1.15 * images["phantom"].max())
    paths = []
    for number, (before, after) in enumerate(zip((SCAN, *STEPS[:-1]), STEPS, strict=True), start=1):
        panels = [(titles[name], images[name], dark, bright) for name in (before, after)]
        if after in sinograms:
            top = float(sinograms[after].max())
            panels += [(f"sinogram, {name}", sinograms[name], -0.15 * top, top) for name in (before, after)]
        paths.append(folder / f"{number}-{after}.png")
        _save(panels, paths[-1])
    paths.append(folder / "steps.png")
    _save([(titles[name], images[name], dark, bright) for name in images], paths[-1])
    return paths


def _save(panels: Sequence[tuple[str, np.ndarray, float, float]], path: Path) -> None:
    """Draw panels side by side: title, image, and the values that are black and white."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, places = pyplot.subplots(1, len(panels), figsize=(2.2 * len(panels), 2.6), layout="constrained")
    for place, (title, image, black, white) in zip(places, panels, strict=True):
        place.imshow(image, cmap="gray", vmin=black, vmax=white, aspect="auto" if "sinogram" in title else "equal")
        place.set_title(title, fontsize=9)
        place.axis("off")
    figure.savefig(path, dpi=100, pil_kwargs={"optimize": True})
    pyplot.close(figure)
