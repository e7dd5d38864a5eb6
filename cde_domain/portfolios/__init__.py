"""The portfolios that are shipped, one package each."""
