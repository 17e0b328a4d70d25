"""Training of prompt packs."""
