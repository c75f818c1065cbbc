"""Views of images: every operation is a pair of functions, sample(n, generator) and apply(x, params)."""
