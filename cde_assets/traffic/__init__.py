"""Applicants and outcomes as a lender's day brings them, played against a running service."""
