"""`retold doctor`: what is wrong with this installation, and what mends it. Checks by what they look at."""
