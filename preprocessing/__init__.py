"""What data and tasks share: from raw images and texts to network inputs."""
