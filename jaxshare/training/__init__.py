"""One run as pure functions: playing, storing, drawing, and the program compiled of them."""
