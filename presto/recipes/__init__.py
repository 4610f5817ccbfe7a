"""Training recipes that ship with Presto."""
