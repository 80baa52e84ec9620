"""COCO JSON: images, annotations and categories in one file."""
