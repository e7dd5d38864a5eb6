"""How fast the decision service is beside other ways to serve the same model: `make bench`."""
