"""What the services share: facts, packets, recipes, links, subjects, streams, the bundle. It imports no service."""
