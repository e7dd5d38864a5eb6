"""Training: the only part of the domain that imports machine-learning libraries."""
