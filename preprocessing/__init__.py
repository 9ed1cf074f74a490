"""Preprocessing shared by data modules and tasks: raw images and texts to network inputs."""
