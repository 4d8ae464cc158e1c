"""Random interleavings of writers, refreshes and mishaps against a model of what must come out of them."""
