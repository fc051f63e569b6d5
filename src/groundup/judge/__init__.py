"""An LLM as judge: responses to instructions are scored, or compared, by another model."""
