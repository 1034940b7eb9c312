"""Toy counterparts of language models: superposition at a given width, and teacher–student training dynamics."""
