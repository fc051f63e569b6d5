"""What one does with a GPT: each task assembles model, data and loss for the one loop."""
