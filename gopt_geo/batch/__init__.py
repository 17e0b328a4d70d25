"""Maps of many regions: what they are made of, and what is made of them together."""
