"""What the live page asks: a module per tab, and its frame."""
