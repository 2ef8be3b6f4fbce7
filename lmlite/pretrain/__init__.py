"""Training a language model from nothing: text, tokenizer, objective, loop."""
