"""What both stages share: options, files, networks, training, tiled inference."""
