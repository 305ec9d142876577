"""The attacks, as data, grouped by what they are aimed at. The ids T01 to T64 are those of the threat model's list."""
