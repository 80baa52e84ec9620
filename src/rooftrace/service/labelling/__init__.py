"""What a Label Studio server asks of its ML backend: regions for its tasks."""
