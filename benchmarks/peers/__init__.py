"""What users could take instead, measured beside the engine in one run."""
