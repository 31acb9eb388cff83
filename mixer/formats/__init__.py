"""The files that a render can become."""
