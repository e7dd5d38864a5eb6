"""
The commands of `cde`, by subject: each module is a Typer application that `cde_assets.cli` puts together.

What they need is imported as they run, after `choose` has switched telemetry off, so that `cde --help` answers at once.
"""
