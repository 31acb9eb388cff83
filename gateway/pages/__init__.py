"""The pages that people open: rendered on the server, readable without JavaScript."""
