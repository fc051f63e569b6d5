"""Weights in and out: the model directory and the tables of names."""
