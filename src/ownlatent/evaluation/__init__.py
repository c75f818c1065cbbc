"""What an encoder is worth: embed once, then measure arrays."""
