"""What the Makefile calls: the lock, the book, the notebooks, the repository's address."""
