"""Randomized smoothing in parts: bounds on a probability, radii from bounds, when to stop drawing, noise, the engine.

`core.Smooth` puts them together. Torch, SciPy and the standard library are all that this package needs.
"""
