"""Evidence: what an analyst would look up first, beside each finding and incident."""
