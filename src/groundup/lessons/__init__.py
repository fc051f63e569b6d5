"""Small teaching pieces of the course: read once, understood, and then left behind.

What the model is really made of lives elsewhere (``model/ladder.py`` climbs to its attention).
"""
