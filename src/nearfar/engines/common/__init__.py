"""What all engines share: padding, precision choice, shared prefixes, out-of-memory handling."""
