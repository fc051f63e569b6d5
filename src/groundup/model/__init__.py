"""The Transformer: attention, blocks, GPTModel, and the ladder that leads to them."""
