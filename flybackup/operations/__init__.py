"""What can be done with a repository: a module each. None prints, reads settings or a clock."""
