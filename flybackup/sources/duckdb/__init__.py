"""DuckDB files, captured while another process writes them. DuckDB never opens the live file; nothing is locked.

The rooms, from the bottom: `layout` (the file's headers, free list and checksums), `wal` (its log), `live` (reading a
file that changes), `version` (which DuckDB another process runs), `protocol` (when a copy is consistent), `child`
(DuckDB, in a process that may crash), `validation` (that child, seen from here), `capture`, `restoration`, and
`source`, which alone is used from outside. What other databases in files share is in `sources.files`.
"""
