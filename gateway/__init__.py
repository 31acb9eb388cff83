"""The gateway: serves pages and artifacts on signed, expiring links."""
