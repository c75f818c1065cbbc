"""Where images come from: every source gives Samples by index, and everything else is built on that."""
