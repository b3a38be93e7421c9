"""Events, metrics, timings and log formatting. No HTTP."""
