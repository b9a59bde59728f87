"""Mutated models and requests, in numbers: `make fuzz`."""
