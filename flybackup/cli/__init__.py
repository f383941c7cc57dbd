"""The command line, one module a group of commands. `main` runs it, `group` says what there is, `context` opens things.

Results go to stdout, everything else to stderr. Modules of commands are imported when their command is used, so that
`flybackup --help` needs no more than click.
"""
