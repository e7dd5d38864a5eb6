"""Alerts: what a person should know of, told once, over every channel that is set up."""
