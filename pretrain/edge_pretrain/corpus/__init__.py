"""The built-in corpus: real chemical elements, seeded synthetic people and places, common sentences."""
