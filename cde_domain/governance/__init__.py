"""Governance: fairness, reasons and documentation of a model."""
