"""Measuring a model: its loss on a text, its classes."""
