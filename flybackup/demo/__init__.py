"""`flybackup demo`: `application` plays somebody's program and its database, `story` what happens to them."""
