"""What all dialects share: endpoints, requests, errors, rendering and dispatch of shared paths."""
