"""Experiments that start, grow and end by themselves, as far as the portfolio lets them."""
