"""The scoring model as data: compiled trees, a calibrator, and what the engine must know to use them."""
