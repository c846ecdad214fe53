"""The memory types of Pouransari et al. 2025, appendix I, by their names in recipes and checkpoints."""

from edge_pretrain.memory_types.base import NO_MEMORY, Dimensions, LayerMemory, MemoryType
from edge_pretrain.memory_types.ffn import FFN, memory_ffn
from edge_pretrain.memory_types.kv import KV
from edge_pretrain.memory_types.lora import LORA_FFN, LORA_QK, LORA_VO

TYPES: dict[str, MemoryType] = {kind.name: kind for kind in (FFN, LORA_QK, LORA_VO, LORA_FFN, KV)}

__all__ = ["FFN", "NO_MEMORY", "TYPES", "Dimensions", "LayerMemory", "MemoryType", "memory_ffn"]
