"""Text larger than memory: formats, blocks, cleaning, duplicates, tokenizers, prepared windows, counts of words."""
