"""Running a trained network on images of any size."""
