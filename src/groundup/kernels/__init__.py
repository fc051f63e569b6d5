"""Products of a few rows with quantized matrices, by a small C++ library built on first use."""
