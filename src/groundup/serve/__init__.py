"""A server for one's own models: OpenAI's API, Ollama's, and a page that looks into them."""
