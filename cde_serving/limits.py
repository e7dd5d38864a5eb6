"""How much one request may bring."""

MAX_BODY = 64 * 1024  # bytes of one application
MAX_BATCH_BODY = 8 * 1024 * 1024
MOST_APPLICATIONS = 1000  # in a batch
