"""Tables and texts of any size, embedded or scored by one command that can be stopped and run again."""
