"""The local store of bentos."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg


class BentoStore(dg.ConfigurableResource):
    """BentoML's store below `home`; builds run in a process of their own, since they import the service they build."""

    home: str

    def build(self, context: Path, *, name: str, version: str) -> str:
        """
        Build a bento from a folder with a bentofile.yaml and return its tag; one that exists already is replaced.

        Raises:
            dagster.Failure: BentoML refuses; the message is its own.
        """
        tag = f"{name}:{version}"
        if self.path(tag).exists():
            self._bentoml("delete", "--yes", tag, folder=context)
        self._bentoml(
            "build", "--bentofile", "bentofile.yaml", "--name", name, "--version", version, ".", folder=context
        )
        return tag

    def path(self, tag: str) -> Path:
        """The folder of a bento."""
        name, _, version = tag.partition(":")
        return Path(self.home) / "bentos" / name / version

    def environment(self) -> dict[str, str]:
        """The environment in which BentoML uses this store, sends nothing home and finds the bento's own code first."""
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return {**kept, "BENTOML_HOME": self.home, "BENTOML_DO_NOT_TRACK": "True", "PATH": programs}

    def _bentoml(self, *arguments: str, folder: Path) -> None:
        command = [sys.executable, "-m", "bentoml", *arguments]
        done = subprocess.run(command, cwd=folder, env=self.environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise dg.Failure(f"bentoml {arguments[0]} failed:\n{done.stderr[-2000:]}", allow_retries=False)
