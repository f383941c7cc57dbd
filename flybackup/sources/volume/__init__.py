"""Volumes: a directory tree with everything in it, its databases captured by their own kind's method.

The rooms: `paths` (names inside a volume), `walking` (the tree as it is), `entries` (what is kept of each), `content`
(files that change while they are read), `databases` (those inside), `capture`; `writing` (a tree made below a
directory), `attributes` (owners, times), `placing` (moving it to where it belongs), `restoration`; and `source`, which
alone is used from outside.
"""
