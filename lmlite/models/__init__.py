"""Models: modules, weights in and out, tokenizers."""
