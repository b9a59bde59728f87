"""The composition root: the only package that may import every part of the farm, and only lazily."""
