"""The served models: names, loading, eviction."""
