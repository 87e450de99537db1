"""Health: what the pipeline stands on, looked at now and then, and told of when it changes."""
