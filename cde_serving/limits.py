"""How much one request may bring, and how long it may take."""

MAX_BODY = 64 * 1024  # bytes of one application
MAX_BATCH_BODY = 8 * 1024 * 1024
MOST_APPLICATIONS = 1000  # in a batch

BATCH_SECONDS = 7.0  # until a batch begins no more applications; what it began takes a second or so
ANSWER_SECONDS = 9.0  # until an answer begins
