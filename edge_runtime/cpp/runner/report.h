// What an answer cost, as edge_run prints it.
#pragma once

#include <string>

#include "edge_runtime/edge_runtime.h"

namespace edge::runner {

struct Report {
  std::string text;
  edge_runtime_info info;
  edge_stats stats;
};

std::string json_of(const Report& report);   // one line; keys as `edge-runtime run --json` has them
std::string lines_of(const Report& report);  // for people

}  // namespace edge::runner
