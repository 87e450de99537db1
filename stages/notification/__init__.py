"""Messages to customers and vendors."""
