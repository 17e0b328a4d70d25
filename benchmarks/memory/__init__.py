"""The parts of `inference_memory.py`: the scenes, and one run in a process of its own."""
