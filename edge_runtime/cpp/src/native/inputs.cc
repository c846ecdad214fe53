#include "native/inputs.h"

#include <algorithm>

#include "native/stored.h"

namespace edge::native {

void Inputs::shape(DType dtype, std::size_t columns, std::size_t tokens) {
  is_packed_ = is_packed(dtype);
  tokens_ = tokens;
  columns_ = columns;
  group_count_ = kernels::packed_groups(columns);
  if (is_packed_ && groups_.size() < tokens * group_count_) groups_.resize(tokens * group_count_);
  if (!is_packed_ && floats_.size() < tokens * columns) floats_.resize(tokens * columns);
}

void Inputs::set(std::size_t token, std::size_t first, std::size_t count, const float* x) {
  if (is_packed_) {
    packed_.quantise(x, count, groups_.data() + token * group_count_ + first / kernels::kPackedColumns);
  } else {
    std::copy_n(x, count, floats_.data() + token * columns_ + first);
  }
}

}  // namespace edge::native
