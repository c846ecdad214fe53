#include "report.h"

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

namespace edge::runner {
namespace {

// Physical memory of this process, in bytes; zeros where the system has no /proc.
struct Resident {
  std::uint64_t total = 0;
  std::uint64_t anonymous = 0;
  std::uint64_t file = 0;
};

Resident resident() {
  Resident now;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    unsigned long long kib = 0;
    if (std::sscanf(line.c_str(), "VmRSS: %llu", &kib) == 1) now.total = kib * 1024;
    if (std::sscanf(line.c_str(), "RssAnon: %llu", &kib) == 1) now.anonymous = kib * 1024;
    if (std::sscanf(line.c_str(), "RssFile: %llu", &kib) == 1) now.file = kib * 1024;
  }
  return now;
}

std::string with_digits(const char* format, double value) {
  char buffer[64];
  const int length = std::snprintf(buffer, sizeof buffer, format, value);
  return std::string(buffer, static_cast<std::size_t>(length));
}

std::string megabytes(std::uint64_t bytes) { return with_digits("%.2f MB", static_cast<double>(bytes) / 1e6); }
std::string milliseconds(double ms) { return ms < 0 ? "-" : with_digits("%.1f ms", ms); }

}  // namespace

std::string json_of(const Report& report) {
  using Json = nlohmann::ordered_json;
  const edge_stats& stats = report.stats;
  const Resident now = resident();
  const auto optional = [](bool there, double value) { return there ? Json(value) : Json(); };
  const Json json = {{"text", report.text},
                     {"path", Json(std::vector<std::uint64_t>(stats.path, stats.path + stats.path_length))},
                     {"prompt_tokens", stats.prompt_tokens},
                     {"cached_tokens", stats.cached_tokens},
                     {"generated_tokens", stats.generated_tokens},
                     {"route_ms", stats.route_ms},
                     {"fetch_ms", optional(stats.fetch_ms >= 0, stats.fetch_ms)},
                     {"stall_ms", stats.stall_ms},
                     {"ttft_ms", stats.ttft_ms},
                     {"decode_tokens_per_s", optional(stats.decode_tokens_per_s > 0, stats.decode_tokens_per_s)},
                     {"bytes_read", stats.bytes_read},
                     {"bank_bytes", report.info.bank_bytes},
                     {"bank_resident_bytes", stats.bank_resident_bytes},
                     {"budget_bytes", report.info.budget_bytes},
                     {"kv_bytes", report.info.kv_bytes},
                     {"weights_bytes", report.info.weights_bytes},
                     {"resident_bytes", now.total},
                     {"resident_anonymous_bytes", now.anonymous},
                     {"resident_file_bytes", now.file},
                     {"revision", report.info.revision},
                     {"version", edge_version()}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string lines_of(const Report& report) {
  const edge_stats& stats = report.stats;
  std::string path;
  for (std::uint32_t i = 0; i < stats.path_length; ++i) path += (i > 0 ? " > " : "") + std::to_string(stats.path[i]);
  const Resident now = resident();
  return "memory     path " + (path.empty() ? "-" : path) + ", routed in " + milliseconds(stats.route_ms) + "\n" +
         "bank       read " + megabytes(stats.bytes_read) + " in " + milliseconds(stats.fetch_ms) + ", " +
         milliseconds(stats.stall_ms) + " of it waited for; resident " + megabytes(stats.bank_resident_bytes) + " of " +
         megabytes(report.info.bank_bytes) + ", budget " + megabytes(report.info.budget_bytes) + "\n" +
         "time       first token " + milliseconds(stats.ttft_ms) + ", then " +
         with_digits("%.0f tok/s", stats.decode_tokens_per_s) + "; " + std::to_string(stats.prompt_tokens) + " + " +
         std::to_string(stats.generated_tokens) + " tokens\n" + "process    " + megabytes(now.total) +
         " resident, of which " + megabytes(now.anonymous) + " its own; KV cache up to " +
         megabytes(report.info.kv_bytes) + ", weights " + megabytes(report.info.weights_bytes) + "\n";
}

}  // namespace edge::runner
