"""Results in words and in JSON. Pure: values in, `documents` for machines and `texts` for people out."""
