"""The dead-letter topic for people: what is in it, why, and back with it to where it came from."""
