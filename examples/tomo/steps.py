"""The four steps of the pipeline: preprocess, reconstruct, calibrate, refine. Each is an ordinary function.

Torch is imported where it is used: steps one and three need NumPy alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tomo.scan import RawSlice, angles_of

AIR = 2
"""Columns at each edge of the detector that see nothing but air."""

STEADY = 9
"""Angles over which the beam hardly changes, so that the mean of the air over them has less noise; odd."""

MEDIAN_WIDTH = 9
"""Width in columns of the median filter that separates single columns from the object; odd."""

LEAST_TRANSMISSION = 1e-3
"""Lower transmissions are raised to this: noise can make one negative, and that has no logarithm."""

TV_WEIGHT = 0.0015
"""Weight of the total variation for each angle, against half the squared error of the projections at that angle."""

ITERATIONS = 50
"""Iterations of `refine`; more of them change the image by less than its noise."""

ANGLES_AT_ONCE = 16
"""Angles that are projected back together: this limits the memory."""


# --- 1. preprocess: from counts to attenuations ---------------------------------------------------------------------


def preprocess(raw: RawSlice) -> np.ndarray:
    """Compute a sinogram of attenuations from counts, without the beam's tilt and without rings.

    Returns:
        Attenuations, shape (angles, columns).
    """
    transmission = (raw.counts - raw.dark) / np.maximum(raw.flat - raw.dark, 1)
    transmission /= _beam(transmission)
    sinogram = -np.log(np.maximum(transmission, LEAST_TRANSMISSION))
    return (sinogram - _stripes(sinogram)).astype(np.float32)


def _beam(transmission: np.ndarray) -> np.ndarray:
    """The beam at each angle, as a straight line between the air at the two edges of the detector."""
    left, right = (
        _windows(edge.mean(axis=1), STEADY).mean(axis=1) for edge in (transmission[:, :AIR], transmission[:, -AIR:])
    )
    columns = transmission.shape[1]
    position = (np.arange(columns) - (AIR - 1) / 2) / (columns - AIR)
    return left[:, None] + (right - left)[:, None] * position[None, :]


def _stripes(sinogram: np.ndarray) -> np.ndarray:
    """What a column adds at all angles alike, shape (columns,). A stripe of a sinogram is a ring of the image."""
    return np.median(sinogram - np.median(_windows(sinogram, MEDIAN_WIDTH), axis=-1), axis=0)


def _windows(values: np.ndarray, width: int) -> np.ndarray:
    """For each value the values around it, along the last axis; shape (..., length, width)."""
    margins = [(0, 0)] * (values.ndim - 1) + [(width // 2, width // 2)]
    return np.lib.stride_tricks.sliding_window_view(np.pad(values, margins, mode="edge"), width, axis=-1)


# --- 2. reconstruct: filtered back-projection at several axes -------------------------------------------------------


@dataclass(frozen=True)
class Reconstruction:
    """A slice that was reconstructed at several axes.

    Attributes:
        image: The image with the best score: attenuation per pixel, shape (columns, columns).
        axis: The axis of that image.
        scores: The score of each of the `candidate_axes`; the lowest is the best.
    """

    image: np.ndarray
    axis: float
    scores: np.ndarray


def candidate_axes(columns: int) -> list[float]:
    """The axes at which a slice is reconstructed: whole pixels, to one sixteenth of the columns on both sides."""
    most = max(2, round(columns / 16))
    return [float(axis) for axis in range(-most, most + 1)]


def reconstruct(sinogram: np.ndarray) -> Reconstruction:
    """Reconstruct a slice at each of the `candidate_axes`.

    The score of an axis is the mean absolute value of the image: at a wrong axis, the object is smeared over what is
    empty, and values become negative (Donath et al., J. Opt. Soc. Am. A 23, 1048, 2006).
    """
    axes = candidate_axes(sinogram.shape[-1])
    images = back_projections(sinogram[None], axes, smooth=True)[0]
    scores = np.abs(images).mean(axis=(1, 2))
    best = axes[int(np.argmin(scores))]
    return Reconstruction(back_projections(sinogram[None], [best])[0, 0], best, scores)


def back_projections(sinograms: np.ndarray, axes: Sequence[float], *, smooth: bool = False) -> np.ndarray:
    """Filtered back-projection of slices at axes.

    Args:
        sinograms: Attenuations, shape (slices, angles, columns).
        axes: The axes.
        smooth: Multiply the ramp filter by a Hann window, for less noise and less detail.

    Returns:
        Attenuation per pixel, shape (slices, axes, columns, columns).
    """
    torch = _torch()
    from torch.nn.functional import grid_sample

    slices, angles, columns = sinograms.shape
    filtered = _filtered(sinograms, axes, smooth).reshape(slices * len(axes), angles, 1, columns)
    rows = torch.from_numpy(filtered).transpose(0, 1).contiguous()
    radians = torch.from_numpy(angles_of(angles)).float()[:, None, None]
    at = torch.arange(columns, dtype=torch.float32) - (columns - 1) / 2
    images = torch.zeros(slices * len(axes), columns * columns)
    for some, rows_of_some in zip(radians.split(ANGLES_AT_ONCE), rows.split(ANGLES_AT_ONCE), strict=True):
        column = at[None, None, :] * some.cos() + at[None, :, None] * some.sin()
        position = column.reshape(len(some), 1, -1) * 2 / columns
        grid = torch.stack([position, torch.zeros_like(position)], dim=-1)
        images += grid_sample(rows_of_some, grid, align_corners=False).sum(dim=0)[:, 0]
    return (images * np.pi / angles).reshape(slices, len(axes), columns, columns).numpy()


def _filtered(sinograms: np.ndarray, axes: Sequence[float], smooth: bool) -> np.ndarray:
    """Sinograms after the ramp filter, moved to each axis, shape (slices, axes, angles, columns)."""
    columns = sinograms.shape[-1]
    length = 2 ** int(np.ceil(np.log2(2 * columns)))
    # The transform of the ramp's samples, and not the samples of its transform: else the mean of the image is too low
    # (Kak and Slaney, Principles of Computerized Tomographic Imaging, 1988, section 3.3).
    distance = np.minimum(np.arange(length), length - np.arange(length))
    samples = np.where(distance % 2 == 1, -1 / (np.pi * np.maximum(distance, 1)) ** 2, 0.0)
    samples[0] = 0.25
    ramp, frequencies = np.fft.rfft(samples).real, np.fft.rfftfreq(length)
    if smooth:
        ramp = ramp * (1 + np.cos(2 * np.pi * frequencies)) / 2
    moves = np.exp(2j * np.pi * np.outer(axes, frequencies))
    spectra = np.fft.rfft(sinograms, n=length)[:, None] * (ramp * moves)[None, :, None, :]
    return np.fft.irfft(spectra, n=length)[..., :columns].astype(np.float32)


# --- 3. calibrate: one axis for all slices --------------------------------------------------------------------------


def calibrate(reconstructions: Sequence[Reconstruction]) -> float:
    """Find the axis of the scan, which is the same for all slices: together their scores give it to a part of a pixel.

    Returns:
        The lowest point of the parabola through the sum of the scores at the best axis and at its two neighbours.
    """
    axes = candidate_axes(reconstructions[0].image.shape[-1])
    scores = np.sum([each.scores / each.scores.mean() for each in reconstructions], axis=0)
    best = int(np.clip(np.argmin(scores), 1, len(axes) - 2))
    before, at, after = scores[best - 1 : best + 2]
    bend = before - 2 * at + after
    step = axes[1] - axes[0]
    return float(axes[best] + (step * (before - after) / (2 * bend) if bend > 0 else 0.0))


# --- 4. refine: an iterative reconstruction with total variation ----------------------------------------------------


def refine(sinogram: np.ndarray, axis: float, iterations: int = ITERATIONS) -> np.ndarray:
    """Reconstruct a slice whose projections are those of the sinogram, with few edges. On the GPU where there is one.

    It minimizes half the squared error of the projections, weighted by their photons, plus the weighted total
    variation, over images without negative values, by the primal-dual method of Chambolle and Pock (2011) with the step
    sizes of Pock and Chambolle (2011).

    Args:
        sinogram: Attenuations, shape (angles, columns).
        axis: The axis.
        iterations: Number of iterations.

    Returns:
        Attenuation per pixel, shape (columns, columns).
    """
    torch = _torch()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    measured = torch.from_numpy(sinogram).to(device)
    project = _projector(*sinogram.shape, axis, device)
    first = back_projections(sinogram[None], [axis], smooth=True)[0, 0]
    image = ahead = torch.from_numpy(first).to(device).clamp(min=0)

    weights = torch.exp(-measured).clamp(max=1)
    tv_weight = TV_WEIGHT * len(sinogram)
    project_back, gradient_back = _transpose(project, image), _transpose(_gradient, image)
    seen = project_back(torch.ones_like(measured))  # by how many rays a pixel is seen
    scale = float(seen.max()) / 4  # of the gradient: projections and gradient have steps of like sizes
    image_steps = 1 / (seen + 4 * scale)
    ray_steps = 1 / project(torch.ones_like(image)).clamp(min=1)
    slope_steps = 1 / (2 * scale)

    rays, slopes = torch.zeros_like(measured), torch.zeros(2, *image.shape, device=device)
    for _ in range(iterations):
        rays = (rays + ray_steps * (project(ahead) - measured)) / (1 + ray_steps / weights)
        slopes = slopes + slope_steps * scale * _gradient(ahead)
        slopes = slopes / (slopes.norm(dim=0) * scale / tv_weight).clamp(min=1)
        change = project_back(rays) + scale * gradient_back(slopes)
        image, last = (image - image_steps * change).clamp(min=0), image
        ahead = 2 * image - last
    return image.cpu().numpy()


def _projector(angles, columns, axis, device):
    """A function that computes the sums of an image along the rays, shape (angles, columns)."""
    torch = _torch()
    from torch.nn.functional import grid_sample

    radians = torch.from_numpy(angles_of(angles)).float().to(device)[:, None, None]
    at = torch.arange(columns, dtype=torch.float32, device=device) - (columns - 1) / 2
    across, along = at[None, :, None] - axis, at[None, None, :]
    x, y = radians.cos() * across - radians.sin() * along, radians.sin() * across + radians.cos() * along
    grid = torch.stack([x, y], dim=-1) * 2 / columns

    def project(image):
        images = image.expand(angles, 1, columns, columns)
        return grid_sample(images, grid, align_corners=False).sum(dim=3)[:, 0]

    return project


def _gradient(image):
    """Differences of neighbours in both directions, shape (2, columns, columns); 0 at the last row and column."""
    from torch.nn.functional import pad

    down, right = image[1:] - image[:-1], image[:, 1:] - image[:, :-1]
    return _torch().stack([pad(down, (0, 0, 0, 1)), pad(right, (0, 1))])


def _transpose(linear, like):
    """The transpose of a linear function of images like this one: the gradient of its scalar product with a value."""
    torch = _torch()
    with torch.enable_grad():
        image = torch.zeros_like(like, requires_grad=True)
        result = linear(image)  # computed once: the gradient does not depend on the image
    return lambda value: torch.autograd.grad(result, image, value, retain_graph=True)[0]


def _torch():
    """Torch, with as many threads as a job has vCPUs: it would start one for each core of the machine."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return torch
