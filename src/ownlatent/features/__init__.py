"""Features in files: written as a stream that can be gone on with, read back, and searched."""
