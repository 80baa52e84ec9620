"""ML backend for Label Studio: predicted regions for its tasks."""
