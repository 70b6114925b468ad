"""One module per kernel interface; each returns arrays or frames and knows nothing above it."""
