"""The Litestar application around the dialects: authentication, access log, documentation."""
