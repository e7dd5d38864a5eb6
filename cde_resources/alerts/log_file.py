"""The channel that is always there: a file of JSON lines."""

import json
import os
from pathlib import Path

from cde_resources.alerts.alert import ChannelError, Message


class LogChannel:
    """Appends each message to a file, one JSON object a line."""

    name = "log"

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, message: Message) -> None:
        """Append the message."""
        line = json.dumps(message.json(), ensure_ascii=False) + "\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ChannelError(f"{self._path.name} cannot be written: {error.strerror}") from None
