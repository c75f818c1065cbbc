"""One file is one kind of source; opening.py knows them by name."""
