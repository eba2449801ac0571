"""What latents mean, and where: Dataset in, Dataset out."""
