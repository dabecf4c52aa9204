"""What a network looks at, as pictures."""
