// The name of a block and of a node of the router's tree.
#pragma once

#include <compare>
#include <cstdint>

namespace edge {

// Node `index` of a level is child `index mod fanout` of node `index div fanout` of the level above. Level 0 has one
// node, the generic memory; it is nobody's parent.
struct Node {
  std::uint32_t level = 0;
  std::uint64_t index = 0;
  friend auto operator<=>(const Node&, const Node&) = default;
};

}  // namespace edge
