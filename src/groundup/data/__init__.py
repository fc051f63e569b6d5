"""Text in: reading, splitting, cutting into windows."""
