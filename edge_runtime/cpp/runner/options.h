// edge_run's command line.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "edge_runtime/edge_runtime.h"

namespace edge::runner {

struct Options {
  std::string bundle;
  std::string prompt;
  edge_runtime_options runtime;
  edge_sampling sampling;
  edge_generate_options generate;
  std::vector<edge_node> blocked = {};
  std::vector<const char*> stop = {};  // of argv
  bool json = false;
  bool stats = false;
  bool help = false;
};

// The options, with generate pointing into them and into argv. What is wrong, in one line, is left in `wrong`, which is
// empty otherwise.
void parse(int argc, const char* const* argv, Options& options, std::string& wrong);

extern const char* const kUsage;

}  // namespace edge::runner
