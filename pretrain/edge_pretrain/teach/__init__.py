"""New knowledge after training: blocks of a bundle's bank that learn documents while the anchor stays as it is."""
