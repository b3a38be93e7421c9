"""Files that the command line prints: dashboard, alert rules, example settings."""
