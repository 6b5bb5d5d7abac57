"""What networks with stacks learn: recipes from fixed seeds, and what came out. `python -m results` runs them."""
