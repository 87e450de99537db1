"""Every way in: HTTP, webhooks, the command line; and the composition root that puts the parts together."""
