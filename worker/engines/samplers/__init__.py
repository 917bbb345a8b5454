"""Small models that draw pictures of classes: what the recipes diffusion, gan and vae deliver."""
