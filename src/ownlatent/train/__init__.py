"""The training engine: a recipe, a LightningModule and the callbacks around them."""
