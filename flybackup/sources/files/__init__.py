"""Databases that are a file with companions beside it: what restoring any of them has in common.

`family` (which files belong together), `staging` (writing them beside the target), `refusals` (targets that are taken
or in use), `restoration` and `publishing` (moving them into place), `holders` (who has a file open or locked),
`extents` (a file as a stream).
"""
