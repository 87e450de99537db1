"""Voice notes: where they come from, what is in them, what is said in them."""
