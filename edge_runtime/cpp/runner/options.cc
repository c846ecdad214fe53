#include "options.h"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <iterator>
#include <string_view>

namespace edge::runner {

const char* const kUsage =
    "usage: edge_run BUNDLE PROMPT [options]      PROMPT - reads standard input\n"
    "  --max-tokens N          of the answer (default: the bundle's)\n"
    "  --temperature T         0 takes the likeliest token (default: the bundle's)\n"
    "  --top-k K  --top-p P  --min-p P  --repetition-penalty R  --seed N\n"
    "  --stop TEXT             ends the answer; may be given again (default: the bundle's)\n"
    "  --memory MODE           fetched, generic or none (default: fetched where there is a bank)\n"
    "  --block LEVEL:NODE      a node that routing avoids, with its subtree; may be given again\n"
    "  --router NAME           which of the bundle's routers (default: its default)\n"
    "  --budget SIZE           of the bank in memory: bytes, or with KB, MB, GB, KiB, MiB, GiB (default: two leases)\n"
    "  --storage KIND          auto, direct, mapped or uring (default: auto)\n"
    "  --threads N             of the engine (default: 2)\n"
    "  --json                  print one JSON object: the text and what it cost\n"
    "  --stats                 then say what it cost, on standard error\n";

namespace {

template <typename Number>
bool number(std::string_view text, Number& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

bool real(const char* text, float& out) {
  char* end = nullptr;
  out = std::strtof(text, &end);
  return end != text && *end == '\0' && std::isfinite(out);
}

bool size(std::string_view text, std::uint64_t& out) {
  static constexpr std::pair<std::string_view, double> kUnits[] = {
      {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}};
  double scale = 1;
  for (const auto& [unit, of_unit] : kUnits) {
    if (!text.ends_with(unit)) continue;
    text.remove_suffix(unit.size());
    scale = of_unit;
    break;
  }
  const std::string digits(text);
  char* end = nullptr;
  const double value = std::strtod(digits.c_str(), &end) * scale;
  if (digits.empty() || *end != '\0' || !(value >= 1 && value < 1e18)) return false;
  out = static_cast<std::uint64_t>(value);
  return true;
}

bool memory(std::string_view text, std::int32_t& out) {
  static constexpr std::string_view kModes[] = {"fetched", "generic", "none"};
  for (std::int32_t i = 0; i < 3; ++i) {
    if (text == kModes[i]) {
      out = i;
      return true;
    }
  }
  return false;
}

bool node(std::string_view text, std::vector<edge_node>& out) {
  const std::size_t colon = text.find(':');
  edge_node parsed{};
  if (colon == std::string_view::npos || !number(text.substr(0, colon), parsed.level) ||
      !number(text.substr(colon + 1), parsed.index)) {
    return false;
  }
  out.push_back(parsed);
  return true;
}

// Whether the option is known and its value is one.
bool take(const std::string_view name, const char* value, Options& options) {
  edge_sampling& sampling = options.sampling;
  if (name == "--max-tokens") return number(value, options.generate.max_tokens) && options.generate.max_tokens > 0;
  if (name == "--temperature") return real(value, sampling.temperature) && sampling.temperature >= 0;
  if (name == "--top-k") return number(value, sampling.top_k);
  if (name == "--top-p") return real(value, sampling.top_p);
  if (name == "--min-p") return real(value, sampling.min_p);
  if (name == "--repetition-penalty") return real(value, sampling.repetition_penalty);
  if (name == "--seed") return number(value, sampling.seed);
  if (name == "--memory") return memory(value, options.generate.memory);
  if (name == "--block") return node(value, options.blocked);
  if (name == "--budget") return size(value, options.runtime.budget);
  if (name == "--threads") return number(value, options.runtime.threads);
  if (name == "--stop") options.stop.push_back(value);
  if (name == "--router") options.runtime.router = value;
  if (name == "--storage") options.runtime.storage = value;
  return name == "--stop" || name == "--router" || name == "--storage";
}

}  // namespace

void parse(int argc, const char* const* argv, Options& options, std::string& wrong) {
  edge_runtime_options_init(&options.runtime);
  edge_sampling_init(&options.sampling);
  options.sampling.temperature = -1;
  edge_generate_options_init(&options.generate);
  std::vector<std::string> positional;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--json") {
      options.json = true;
    } else if (name == "--stats") {
      options.stats = true;
    } else if (name == "--help" || name == "-h") {
      options.help = true;
      return;
    } else if (!name.starts_with("--")) {
      positional.emplace_back(name);
    } else if (i + 1 == argc) {
      wrong = std::string(name) + ": unknown, or without its value: see --help";
      return;
    } else if (!take(name, argv[++i], options)) {
      wrong = std::string(name) + " " + argv[i] + ": no such option, or no value for it: see --help";
      return;
    }
  }
  if (positional.size() != 2) {
    wrong = "it takes a BUNDLE and a PROMPT: see --help";
    return;
  }
  options.bundle = positional[0];
  options.prompt = positional[1];
  if (options.prompt == "-") {
    options.prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
    while (options.prompt.ends_with('\n')) options.prompt.pop_back();
  }
  options.generate.sampling = &options.sampling;
  options.generate.blocked = options.blocked.data();
  options.generate.blocked_count = options.blocked.size();
  if (!options.stop.empty()) {
    options.generate.stop = options.stop.data();
    options.generate.stop_count = options.stop.size();
  }
}

}  // namespace edge::runner
