"""What is told about an idempotency key that cannot be used."""

BAD_KEY = {"detail": "Idempotency-Key must be 1 to 255 visible ASCII characters"}
KEY_REUSED = {
    "field": "Idempotency-Key",
    "message": "Key was used for another request",
    "type": "idempotency_key_reused",
}
