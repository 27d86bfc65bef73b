"""Training: losses, noise, optimisers, the epoch loop, and the run directory that it writes."""
