"""Experiment configurations; they know only ml_collections."""
