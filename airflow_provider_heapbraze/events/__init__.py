"""Event export: a stream of Braze events is carried over to Heap, each once."""
