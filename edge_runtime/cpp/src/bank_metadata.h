// What the reader and the writer of level files both check.
#pragma once

#include "edge_runtime/bank_level.h"

namespace edge {

// Checks every field against docs/bank-format.md and derives `nodes`. After it the offsets of the spec cannot overflow.
// kBadFormat or kUnsupported; the message names no file.
Status check_spec(BankLevelSpec& spec);

}  // namespace edge
