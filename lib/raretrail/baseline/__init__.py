"""What is usual: daily facts of presence, and windowed aggregates of them."""
