"""The command line, `retold`."""
