"""What runs where decisions are made: the scoring service, its decision log and the ledger of promotions."""
