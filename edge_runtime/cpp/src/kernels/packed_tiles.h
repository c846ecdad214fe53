// The loop over blocks and tokens that the packed products of all vector instruction sets share.
//
// A Block gives: its kType; kTokens, as many as its sums fit beside a group's weights; and
// multiply<tokens>(data, scales, tokens, groups, y, stride), one block with so many tokens. Block must be a type of the
// file that includes this, so that its instances are compiled with that file's flags.
#pragma once

#include "kernels/packed.h"

namespace edge::kernels {

template <class Block>
void multiply_packed(const PackedBlocks& blocks, const PackedTokens& tokens, float* y, std::size_t stride) {
  const std::size_t columns = tokens.groups * kPackedColumns;
  const std::size_t block_bytes = packed_block_bytes(Block::kType, columns);
  const std::size_t scale_bytes = packed_scale_bytes(Block::kType, columns);
  // A few tokens' groups stay in the nearest cache while all blocks pass.
  std::size_t t = 0;
  const auto take = [&]<std::size_t kT> {
    for (std::size_t b = 0; b < blocks.count; ++b) {
      Block::template multiply<kT>(blocks.data + b * block_bytes, blocks.scales + b * scale_bytes,
                                   tokens.data + t * tokens.groups, tokens.groups, y + t * stride + b * kPackedRows,
                                   stride);
    }
    t += kT;
  };
  while (t + Block::kTokens <= tokens.count) take.template operator()<Block::kTokens>();
  while (t < tokens.count) take.template operator()<1>();
}

}  // namespace edge::kernels
