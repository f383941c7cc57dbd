"""Sources that other programs read and write through a pipe: what running any of them has in common.

`running` (start, feed, read, bound and end a program), `words` (what it says on standard error), `arrival` (the bytes
of a restore in the order in which a pipe takes them).
"""
