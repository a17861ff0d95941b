"""What the chat has and the Go original has not."""
