"""Access to NATS JetStream: the only place that imports `nats`."""
