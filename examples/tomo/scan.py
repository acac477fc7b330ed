"""A phantom of ellipsoids and its scan: what a detector counts behind it, with the faults of a real detector."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RADIUS = 0.40
"""Radius of the phantom, as a share of the volume's width: each row of the detector sees air at both of its edges."""

ATTENUATION = 4.0
"""Attenuation (natural logarithm) of the phantom's diameter if all of it were of the material of its shell."""

PHOTONS = 3000.0
"""Photons that a pixel in the middle of the beam counts at one angle, with nothing in the beam."""

DARK = 100.0
"""What a pixel counts without a beam."""

FLATS = 20
"""Number of frames without the phantom. The flat field is their mean."""

TILT = 0.35
"""How much brighter than in the middle of the detector the beam is at its right edge."""

DRIFT = 0.08
"""How much weaker the beam is at the end of the scan. Its tilt changes by twice as much in between."""

GAIN_SPREAD = 0.05
"""Standard deviation of the pixels' gains."""

RING_SPREAD = 0.02
"""Standard deviation of the change of a pixel's gain between flat field and scan. This change makes rings."""

AXIS = 0.05
"""Largest distance of the axis from the middle of the detector, as a share of the detector's width."""

FINE = 4
"""Points of a pixel in each direction; a pixel has the mean of their values."""


@dataclass(frozen=True)
class RawSlice:
    """What the detector's row of one slice counted.

    Attributes:
        counts: Counts of the scan, shape (angles, columns). The angles are evenly spaced over half a turn.
        flat: Mean counts without the phantom, taken before the scan, shape (columns,).
        dark: Mean counts without a beam, shape (columns,).
    """

    counts: np.ndarray
    flat: np.ndarray
    dark: np.ndarray


def angles_of(count: int) -> np.ndarray:
    """The angles of a scan in radians, evenly spaced over half a turn."""
    return np.arange(count) * np.pi / count


def true_axis(pixels: int, seed: int) -> float:
    """The axis of a scan, which the pipeline has to find out."""
    random = np.random.default_rng([seed, 1])
    return float(random.choice([-1, 1]) * random.uniform(0.4, 1.0) * AXIS * pixels)


def ellipses(slices: int, pixels: int, seed: int) -> list[np.ndarray]:
    """The ellipses of each slice: the cuts of a plane through the phantom's ellipsoids.

    Returns:
        For each slice an array with a row for each ellipse: attenuation per pixel; centre x and y and half axes a and
        b, in pixels from the middle of the slice; the angle of a in radians. Where ellipses overlap, attenuations add
        up.
    """
    random = np.random.default_rng([seed, 0])
    # Value, centre x, y, z, half axes a, b, c and angle, in radii of the phantom. A shell, what is inside it, and two
    # cavities, as in the phantom of Shepp and Logan; then grains.
    solids = [
        (1.0, 0.0, 0.0, 0.0, 0.85, 1.0, 1.6, 0.0),
        (-0.6, 0.0, 0.0, 0.0, 0.78, 0.92, 1.5, 0.0),
        (-0.25, 0.28, 0.05, 0.1, 0.14, 0.36, 0.9, -0.3),
        (-0.25, -0.28, 0.0, -0.1, 0.18, 0.46, 0.9, 0.3),
    ]
    for _ in range(14):
        direction, distance = random.uniform(0, 2 * np.pi), 0.68 * np.sqrt(random.uniform())
        x, y, z = 0.8 * distance * np.cos(direction), distance * np.sin(direction), random.uniform(-0.9, 0.9)
        a, b, c = random.uniform(0.04, 0.16, size=3) * (1, 1, 4)
        solids.append((random.choice([0.25, 0.4, -0.2]), x, y, z, a, b, c, random.uniform(0, np.pi)))
    radius = RADIUS * pixels
    found = []
    for height in _heights(slices):
        cuts = []
        for value, x, y, z, a, b, c, angle in solids:
            size = np.sqrt(max(0.0, 1 - ((height - z) / c) ** 2))
            if size > 0.05:
                attenuation = value * ATTENUATION / (2 * radius)
                cuts.append((attenuation, x * radius, y * radius, a * size * radius, b * size * radius, angle))
        found.append(np.array(cuts))
    return found


def _heights(slices: int) -> np.ndarray:
    return np.linspace(-0.8, 0.8, slices) if slices > 1 else np.zeros(1)


def phantom(slices: int, pixels: int, seed: int) -> np.ndarray:
    """The phantom: attenuation per pixel, shape (slices, pixels, pixels)."""
    points = (np.arange(pixels * FINE) + 0.5) / FINE - pixels / 2
    x, y = points[None, :], points[:, None]
    volume = np.zeros((slices, pixels, pixels), dtype=np.float32)
    for index, cuts in enumerate(ellipses(slices, pixels, seed)):
        image = np.zeros((pixels * FINE, pixels * FINE), dtype=np.float32)
        for value, x0, y0, a, b, angle in cuts:
            along = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)
            across = (y - y0) * np.cos(angle) - (x - x0) * np.sin(angle)
            image += np.float32(value) * ((along / a) ** 2 + (across / b) ** 2 <= 1)
        volume[index] = image.reshape(pixels, FINE, pixels, FINE).mean(axis=(1, 3))
    return volume


def line_integrals(cuts: np.ndarray, angles: np.ndarray, columns: int, axis: float) -> np.ndarray:
    """The exact attenuation of a slice along each ray, shape (angles, columns).

    It is computed from the ellipses and not from an image: a reconstruction that is tested with projections of its own
    model of the rays looks better than it is.
    """
    points = (np.arange(columns * FINE) + 0.5) / FINE - columns / 2 - axis
    total = np.zeros((len(angles), columns * FINE))
    for value, x0, y0, a, b, angle in cuts:
        width2 = ((a * np.cos(angles - angle)) ** 2 + (b * np.sin(angles - angle)) ** 2)[:, None]
        distance = points[None, :] - (x0 * np.cos(angles) + y0 * np.sin(angles))[:, None]
        total += 2 * value * a * b * np.sqrt(np.maximum(0, width2 - distance**2)) / width2
    return total.reshape(len(angles), columns, FINE).mean(axis=2)


def scan(index: int, slices: int, pixels: int, angles: int, seed: int) -> RawSlice:
    """Scan a slice of the phantom.

    Args:
        index: Index of the slice, and of the detector's row.
        slices: Number of slices.
        pixels: Width of the volume and of the detector in pixels.
        angles: Number of angles.
        seed: Seed of phantom, axis, detector and noise. The same seed gives the same scan.
    """
    random = np.random.default_rng([seed, 2, index])
    height, cuts = _heights(slices)[index], ellipses(slices, pixels, seed)[index]
    column, time = np.linspace(-1, 1, pixels)[None, :], np.linspace(0, 1, angles)[:, None]
    # The beam changes during the scan: the flat field, which was taken before, does not have this change.
    drift = 1 - DRIFT * time + 2 * DRIFT * np.sin(np.pi * time) * column
    gain = 1 + GAIN_SPREAD * random.standard_normal(pixels)
    changed_gain = gain * (1 + RING_SPREAD * random.standard_normal(pixels))
    dark = DARK * (1 + 0.05 * random.standard_normal(pixels))
    beam = PHOTONS * (1 + TILT * column[0] + TILT / 2 * height)
    transmission = np.exp(-line_integrals(cuts, angles_of(angles), pixels, true_axis(pixels, seed)))
    return RawSlice(
        counts=random.poisson(dark + beam * changed_gain * drift * transmission).astype(np.uint16),
        flat=random.poisson(dark + beam * gain, size=(FLATS, pixels)).mean(axis=0).astype(np.float32),
        dark=dark.astype(np.float32),
    )
