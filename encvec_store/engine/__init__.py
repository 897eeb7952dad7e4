"""What happens on a write, a read and a search of one open collection."""
