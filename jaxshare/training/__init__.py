"""One run as pure functions: playing, storing, drawing, and the program that is compiled of them."""
