"""DuckDB files, captured while another process writes them. DuckDB never opens the live file; nothing is locked.

The rooms, from the bottom: `layout` (the file's headers, free list and checksums), `wal` (its log), `locks` (who holds
it), `live` (reading a file that changes), `protocol` (when a copy is consistent), `child` (DuckDB, in a process that
may crash), `validation` (that child, seen from here), `capture`, `restoration`, `publishing`, and `source`, which
alone is used from outside.
"""
