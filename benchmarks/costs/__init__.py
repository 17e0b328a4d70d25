"""The parts of ``benchmarks/model_costs.py``: one module a section, and what they share."""
