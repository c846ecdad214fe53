"""A recipe that trains in a second: a few synthetic entities, no elements."""

TINY = """\
[corpus]
element_documents = 0
people = 10
people_documents = 40
places = 0
place_documents = 0
common_documents = 20
zipf = 1.0
fact_floor = 0
[tree]
fanout = 4
depth = 2
[tokens]
vocab_size = 300
sequence_length = 64
[anchor]
layers = 2
d_model = 16
heads = 2
head_dim = 8
ffn_dim = 24
context_length = 96
[memory]
rows = [2, 4]
[phases.anchor]
steps = 6
batch = 4
warmup = 2
learning_rate = 1e-2
weight_decay = 0.05
[phases.cotrain]
steps = 6
batch = 4
warmup = 2
learning_rate = 5e-3
weight_decay = 0.05
memory_learning_rate = 1e-2
memory_weight_decay = 1e-3
[controls]
learning_rate = 1e-2
"""
