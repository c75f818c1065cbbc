"""Named recipes: one function each, with the command, the expected score and the hardware in its docstring."""
