"""Tomography for examples/pipeline.py, in NumPy and torch. It knows nothing of Covalent and of AWS.

`scan` makes a phantom and its scan, `steps` has the four steps of the pipeline, `compare` measures how near the images
of each step come to the phantom, and draws them.

Terms: a *slice* is a plane of the volume, and the row of the detector that sees this plane. A *sinogram* has a row for
each angle and a column for each pixel of a row of the detector. The *axis* is the place at which the detector sees the
axis of rotation, in pixels from the middle of the row.
"""
