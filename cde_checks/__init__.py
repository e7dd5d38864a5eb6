"""Statements about assets that must be true."""
