"""What an installation is made of before it runs: keys, certificates, and the configuration of its NATS server."""
