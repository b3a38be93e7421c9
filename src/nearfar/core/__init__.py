"""The words that every other package uses: errors, types, jobs, settings. Imports no other package of nearfar."""
