"""Real servers for tests, and one that misbehaves on purpose."""
