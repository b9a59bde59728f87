"""Faults: what is done to a farm of real processes, and what must hold all the same."""
