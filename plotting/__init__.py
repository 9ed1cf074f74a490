"""Drawing helpers for figures of images and texts."""
