"""The mixer: replays a session from the log, places every packet in time, and renders it."""
