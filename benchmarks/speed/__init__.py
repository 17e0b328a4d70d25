"""The parts of `inference.py`: one module a section, and what they share."""
