"""Where an address is: the databases, looking addresses up, and what counts as one place."""
