"""Memories on a frozen Hugging Face anchor, post hoc (Pouransari et al. 2025, section 4)."""
