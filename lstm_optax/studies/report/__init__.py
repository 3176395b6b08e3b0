"""The report of a study: one page that opens from disk, its plots as files, and a table."""
