"""Names, in place of fair-py-ops."""

CheckpointBytesMaterializer = ONNXMaterializer = object
