"""How Retold is run and watched: the command line, the embedded server, lag, and the loopback Discord."""
