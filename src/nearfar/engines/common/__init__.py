"""What all engines share: padding, precision measurement, prefix sharing, out-of-memory detection."""
