"""What can be done with a repository: one module, one public function each. None prints, reads settings or a clock."""
