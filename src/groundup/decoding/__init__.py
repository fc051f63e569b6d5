"""Text out: sampling, and the one generation engine."""
