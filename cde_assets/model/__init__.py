"""Stage model: the candidates, the challenger in its served form, and how good it is."""
