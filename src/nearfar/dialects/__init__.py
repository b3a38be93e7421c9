"""Wire protocols: each translates HTTP requests into jobs and answers into its own format."""
