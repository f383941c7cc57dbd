"""flybackup: backup and disaster recovery with proof that a restore is right."""

__version__ = "0.1.0"
