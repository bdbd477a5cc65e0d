"""How fast a bundle is here: its backends alone, and the whole stream from capture to published result."""
