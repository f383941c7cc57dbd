"""Real stand-ins for the engine's tests: a source whose data is in memory, and a store that fails on schedule."""
