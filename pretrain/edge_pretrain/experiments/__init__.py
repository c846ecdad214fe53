"""The ablations of Pouransari et al. 2025, section 4: python -m edge_pretrain.experiments NAME."""
