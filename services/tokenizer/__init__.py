"""The tokenizer: conversations into token ids."""
