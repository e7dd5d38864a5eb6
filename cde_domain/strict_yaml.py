"""YAML for rules: read without surprises."""

from typing import Any

import yaml


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is given twice: of two cut-offs, YAML's own loader silently takes the second."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # as PyYAML calls it
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """
    What a YAML text says.

    Raises:
        yaml.YAMLError: it is no YAML, holds more than plain values, or gives a key twice.
    """
    return yaml.load(text, _StrictLoader)  # noqa: S506  # a safe loader
