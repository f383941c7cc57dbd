"""SQLite database files: copied by SQLite's own backup while they are used, or raw with their logs while they rest.

`header` (what the first bytes say), `live` (the application's file and its locks), `copying` (a consistent copy in
scratch), `resting` (the raw way), `measuring` (what is in a copy), `extraction` (single tables), `connecting` (the only
way to a connection).
"""
